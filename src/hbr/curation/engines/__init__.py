"""Who works on the chunks of a run: this machine, or a cluster.

A chunk is done when its part is on disk; an engine only reports it. Chunks are read from the plan
no faster than they are done.
"""
