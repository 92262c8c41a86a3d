"""Networks of dlib, read by plain parsing of what its `serialize` writes.

A number is a byte, whose lower half says how many bytes follow and whose highest bit is the sign;
a float is two of them, mantissa and exponent; a tensor is its version, four sizes and float32. A
network is a row of versions, from the loss to the input, and then the layers from the input on.

Shapes: o output channels, i input channels, k kernel size.
"""

from __future__ import annotations

import math

import numpy as np

from hbr.weights.sources import DownloadError

_LOSS, _INPUT = "loss_metric_2", "input_rgb_image_sized"
_VERSION_OF_INPUT = 3
_LARGEST = 1 << 26  # values of a tensor


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    @property
    def ended(self) -> bool:
        return self.at == len(self._data)

    def take(self, size: int) -> bytes:
        self.at += size
        if size < 0 or self.at > len(self._data):
            raise ValueError(f"it ends after {len(self._data)} bytes, in the middle of a layer")
        return self._data[self.at - size : self.at]

    def number(self) -> int:
        (control,) = self.take(1)
        value = int.from_bytes(self.take(control & 0x0F), "little")
        return -value if control & 0x80 else value

    def numbers(self, count: int) -> list[int]:
        return [self.number() for _ in range(count)]

    def text(self) -> str:
        return self.take(self.number()).decode("ascii")

    def floats(self, count: int) -> list[float]:
        return [math.ldexp(self.number(), self.number()) for _ in range(count)]

    def tensor(self) -> np.ndarray:
        _, *shape = self.numbers(5)
        if min(shape) < 0 or math.prod(shape) > _LARGEST:
            raise ValueError(f"a tensor of {'x'.join(map(str, shape))}")
        return np.frombuffer(self.take(4 * math.prod(shape)), "<f4")


def read_dlib(data: bytes, path: str) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """The convolutions of a residual network of dlib, in their order, and its last layer.

    The affine layer that follows each convolution is multiplied into it.

    Returns:
        (weight [o, i, k, k], bias [o]) of each, and the matrix [o, i], all float32.

    Raises:
        DownloadError: damaged, cut short, or of layers that are not known.
    """
    reader = _Reader(data)
    try:
        version, name = reader.number(), reader.text()
        if (version, name) != (1, _LOSS):
            raise ValueError(f"it begins with {name!r}, not with {_LOSS}")
        reader.floats(2)
        while reader.number() != _VERSION_OF_INPUT:
            pass
        if (name := reader.text()) != _INPUT:
            raise ValueError(f"its input is {name!r}, not {_INPUT}")
        reader.floats(3)  # the mean colour
        reader.numbers(2)
        return _layers(reader, path)
    except (ValueError, OverflowError, IndexError) as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(f"{path} is no network of dlib, or damaged: {error}") from None


def _layers(reader: _Reader, path: str) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    convolutions: list[tuple[np.ndarray, np.ndarray]] = []
    matrix: np.ndarray | None = None
    first = True
    while not reader.ended:
        name = reader.text()
        if name == "con_4":
            convolutions.append(_convolution(reader))
        elif name == "affine_":
            scale, offset = np.split(reader.tensor(), 2)
            reader.numbers(11)
            weight, bias = convolutions[-1]
            convolutions[-1] = (weight * scale[:, None, None, None], bias * scale + offset)
        elif name in ("max_pool_2", "avg_pool_2"):
            reader.numbers(6)
        elif name == "fc_2":
            width = reader.numbers(2)[0]
            matrix = reader.tensor().reshape(-1, width).T
            reader.numbers(11)
            reader.floats(4)
        elif name not in ("relu_", "add_prev_"):
            raise DownloadError(f"{path}: hbr knows no layer {name!r} of dlib")
        reader.take(3)  # what it is set up for
        for _ in range(3):
            reader.tensor()  # of a training; empty
        if first:
            reader.number()
            first = False
    if matrix is None:
        raise ValueError("its last layer is missing")
    return convolutions, matrix


def _convolution(reader: _Reader) -> tuple[np.ndarray, np.ndarray]:
    values = reader.tensor()
    reader.numbers(7)
    _, *shape = reader.numbers(5)
    reader.numbers(5)
    reader.floats(4)
    count = math.prod(shape)
    return values[:count].reshape(shape), values[count:]
