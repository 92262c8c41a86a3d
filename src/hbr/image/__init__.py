"""Reading and writing photographs without loss: everything about pixels, metadata and formats.

`read_photo` returns a `Photo`: upright RGB pixels in sRGB, at the depth of the file, with alpha and
metadata. `Photo.tensor` is the input of a network, `Photo.with_pixels` replaces the pixels by a
restored image, and `write_photo` writes the photo atomically.

Conventions:

* **Orientation** of EXIF (else XMP) is applied, then set to 1; the EXIF thumbnail, which
  would still show the old image, is removed.
* **Colours**: `Photo.pixels` are sRGB. What the numbers of a file mean is decided in
  `hbr.image.colorimetry`, by its ICC profile, else by code points (cICP of PNG, nclx of AVIF),
  gamma and primaries (PNG, TIFF, BMP), or EXIF (Adobe RGB). A photo in another RGB or grey space of
  the matrix or curve kind (Adobe RGB, Display P3, ProPhoto, dot gain) is converted for the model,
  and back when written, and colours outside sRGB are added back to what sRGB clipped; where no
  profile says it and the space holds no other colours than sRGB, the photo is written in sRGB.
  Profiles close to sRGB, and those made of look-up tables, pass through with the pixels as they
  are. A broken profile, or one for another kind of pixels, is dropped with a warning. HDR (PQ, HLG)
  is refused.
* **CMYK** goes through its profile, or, with a warning, as offset printing on coated paper.
* **Alpha** is carried and resized. Colours hidden under full transparency are replaced on reading
  by their visible surroundings, so that hidden colours cannot bleed into visible ones. JPEG and BMP
  have no alpha: the photo is composited on white.
* **Grey** stays grey, 16 bits stay 16 (PNG, TIFF), palettes and CMYK become RGB. AVIF of 10 and 12
  bits, and TIFF files of floating-point numbers in [0, 1], are read as 16 bits.
* **One image per file**: animations and many-page TIFF are refused rather than cut to the first
  frame; of a phone's MPO the main image is read.
* **Metadata**: EXIF, XMP, IPTC, comments and texts are carried (`hbr.image.kept`); what a new
  picture makes untrue in them is mended or removed (`hbr.image.untrue`).
* **Damage**: see `hbr.image.damage`.
"""

from typing import TYPE_CHECKING

from hbr.lazy import lazy

if TYPE_CHECKING:
    from hbr.errors import PhotoError
    from hbr.image.limits import DEFAULT_MAX_PIXELS
    from hbr.image.paths import READ_SUFFIXES, is_photo_name
    from hbr.image.photo import Photo
    from hbr.image.reading import read_photo
    from hbr.image.writing import WRITE_SUFFIXES, output_suffix, write_photo

_HOMES = {
    "DEFAULT_MAX_PIXELS": "hbr.image.limits",
    "READ_SUFFIXES": "hbr.image.paths",
    "WRITE_SUFFIXES": "hbr.image.writing",
    "Photo": "hbr.image.photo",
    "PhotoError": "hbr.errors",
    "is_photo_name": "hbr.image.paths",
    "output_suffix": "hbr.image.writing",
    "read_photo": "hbr.image.reading",
    "write_photo": "hbr.image.writing",
}

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

__getattr__, __dir__ = lazy(__name__, _HOMES)
