"""JPEG XL: what the header says before anything is decoded, and decoding by pillow-jxl-plugin.

Source: ISO/IEC 18181-1:2024, annex D (image header), and 18181-2 for the boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

from hbr.image.boxes import boxes

_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


@dataclass(frozen=True, kw_only=True)
class JxlHeader:
    """What a JPEG XL says of itself.

    Attributes:
        width, height: in pixels, as stored.
        animated: whether it is an animation.
        bits: of a sample.
        floating: whether samples are floating-point numbers.
    """

    width: int
    height: int
    animated: bool = False
    bits: int = 8
    floating: bool = False


def jxl_header(data: bytes) -> JxlHeader:
    """The header of a file, with or without a container.

    Raises:
        ValueError: there is none.
    """
    stream = data
    if data[:2] != b"\xff\x0a":
        parts = [(kind, content) for kind, content in boxes(data) if kind in (b"jxlc", b"jxlp")]
        stream = b"".join(c if kind == b"jxlc" else c[4:] for kind, c in parts)
    if stream[:2] != b"\xff\x0a":
        raise ValueError("it has no JPEG XL header")
    bits = _Bits(stream[2:66])
    height, width = _size(bits)
    if bits.take(1):  # all that follows is as usual
        return JxlHeader(width=width, height=height)
    if bits.take(1):
        bits.take(3)  # the orientation, which the decoder applies
        if bits.take(1):
            _size(bits)
        if bits.take(1):
            _preview(bits)
        if bits.take(1):
            return JxlHeader(width=width, height=height, animated=True)
    if bits.take(1):
        depth = bits.choose((32, 0), (16, 0), (24, 0), (1, 6))
        return JxlHeader(width=width, height=height, bits=depth, floating=True)
    return JxlHeader(width=width, height=height, bits=bits.choose((8, 0), (10, 0), (12, 0), (1, 6)))


class _Bits:
    """Numbers of few bits, the least significant first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, n: int) -> int:
        """The next `n` bits."""
        if n > self._left:
            raise ValueError("its header ends too early")
        found = self._value & ((1 << n) - 1)
        self._value >>= n
        self._left -= n
        return found

    def choose(self, *kinds: tuple[int, int]) -> int:
        """A number in one of four ways: an offset, and so many bits to be added."""
        offset, n = kinds[self.take(2)]
        return offset + self.take(n)


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)
    height = _edge(bits, small)
    ratio = bits.take(3)
    if ratio:
        over, under = _RATIOS[ratio - 1]
        return height, height * over // under
    return height, _edge(bits, small)


def _edge(bits: _Bits, small: int) -> int:
    if small:
        return 8 * (bits.take(5) + 1)
    return bits.choose((1, 9), (1, 13), (1, 18), (1, 30))


def _preview(bits: _Bits) -> None:
    def edge() -> None:
        if eighths:
            bits.choose((16, 0), (32, 0), (1, 5), (33, 9))
        else:
            bits.choose((1, 6), (65, 8), (321, 10), (1345, 12))

    eighths = bits.take(1)
    edge()
    if not bits.take(3):
        edge()
