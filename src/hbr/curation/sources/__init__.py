"""Where photos come from: annotated data sets in their own formats, archives, tables, folders.

`hbr.curation.sources.opening.open_source(config)` gives a `Source`; going through it gives
`SourceImage`s, one at a time, however many there are. What is wrong with one of them is written in
it, and the others follow.
"""
