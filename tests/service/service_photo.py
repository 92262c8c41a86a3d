"""The photo that the tests of the service upload."""

from pathlib import Path

PHOTO = Path(__file__).parents[1] / "data" / "tie.png"
