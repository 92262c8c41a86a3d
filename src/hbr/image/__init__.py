"""Photographs in and out, without losing anything: the one home of what a file says about pixels.

`read_photo` gives a `Photo`: upright RGB pixels in sRGB, at the depth of the file, with alpha and
everything else that came along. `Photo.tensor` is what a network sees, `Photo.with_pixels` puts a
restored picture in its place, and `write_photo` writes it, atomically.

The choices made here, in one place:

* **Orientation** of EXIF (else XMP) is applied, then set to 1; the thumbnail in the EXIF, which
  would go on showing the old picture, is unlinked.
* **ICC profile**: `Photo.pixels` are sRGB. A photo in another RGB or grey space of the matrix or
  curve kind (Adobe RGB, Display P3, ProPhoto, dot gain) is converted for the model and back when
  written, and colours outside sRGB get back what the way through sRGB clipped. Profiles close to
  sRGB, and those made of look-up tables, pass through with the pixels as they are. A broken
  profile, or one for another kind of pixels, is dropped with a warning in the log.
* **Alpha** is carried and resized. Colours hidden under full transparency are replaced on reading
  by their visible surroundings, so that nothing hidden can bleed into what is seen. JPEG and BMP
  hold no alpha: the photo is laid on white.
* **Grey** stays grey, 16 bits stay 16 (PNG, TIFF), palettes and CMYK become RGB. TIFF files of
  floating-point numbers in [0, 1] count as 16 bits; others are refused.
* **One picture a file**: animations and many-page TIFF are refused rather than cut to the first
  frame; of a phone's MPO the main picture is read.
* Gamma and cICP chunks, IPTC blocks, and HDR gain maps are not read.
"""

from hbr.errors import PhotoError
from hbr.image.paths import READ_SUFFIXES, is_photo_name
from hbr.image.photo import Photo
from hbr.image.reading import DEFAULT_MAX_PIXELS, read_photo
from hbr.image.writing import WRITE_SUFFIXES, output_suffix, write_photo

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "READ_SUFFIXES",
    "WRITE_SUFFIXES",
    "Photo",
    "PhotoError",
    "is_photo_name",
    "output_suffix",
    "read_photo",
    "write_photo",
]
