"""The command line: `hbr restore | models | curate | degrade | train | evaluate | …`.

Loading it loads no torch; each command imports what it works with when it is called.
"""
