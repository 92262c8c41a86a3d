"""The command line: `hbr restore | models | curate | degrade | train | evaluate | …`.

Importing this package does not import torch; each command imports its dependencies when called.
"""
