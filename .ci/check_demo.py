"""Fails unless the restored photo is there, as large as the input, and another picture."""

import sys

import numpy as np

from hbr.image import read_photo

before, after = (read_photo(name) for name in sys.argv[1:3])
if before.size != after.size:
    sys.exit(f"the restored photo is {after.size}; the input is {before.size}")
change = float(np.abs(before.pixels.astype(float) - after.pixels.astype(float)).mean())
if change < 0.5:
    sys.exit(f"the restored photo differs from the input by {change:.2f} of 255 only")
print(f"the restored photo is {after.size} and differs by {change:.2f} of 255 on average")
