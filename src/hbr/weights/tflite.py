"""Networks of TensorFlow Lite, read by plain parsing of their FlatBuffers.

Only what convolutions need is read, after tensorflow/lite/schema/schema.fbs of TensorFlow; fields
are known by their numbers there. Shapes: o output channels, i input channels, k kernel size.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from hbr.weights.sources import DownloadError

# numbers of operations in the schema
_CONVOLUTION, _DEPTHWISE, _DEQUANTIZE, _CUSTOM = 3, 4, 6, 32
_TRANSPOSED = "Convolution2DTransposeBias"  # MediaPipe's own
_WITHOUT_WEIGHTS = {
    0: "ADD",
    1: "AVERAGE_POOL_2D",
    14: "LOGISTIC",
    18: "MUL",
    19: "RELU",
    23: "RESIZE_BILINEAR",
    117: "HARD_SWISH",
}
_TYPES = {0: "<f4", 1: "<f2", 2: "<i4"}


@dataclass(frozen=True)
class _Table:
    """A table of a FlatBuffer: a place in the bytes that its fields are found from."""

    data: bytes
    at: int

    def number(self, field: int, kind: str) -> int:
        at = self._place(field)
        return 0 if at is None else int(struct.unpack_from(kind, self.data, at)[0])

    def bytes_of(self, field: int, size: int = 1) -> bytes:
        """The contents of a vector, whose elements have `size` bytes."""
        place = self._place(field)
        if place is None:
            return b""
        start = place + self._unsigned(place)
        length = self._unsigned(start) * size
        if start + 4 + length > len(self.data):
            raise ValueError("it ends in the middle of a vector")
        return self.data[start + 4 : start + 4 + length]

    def numbers(self, field: int) -> list[int]:
        return [n for (n,) in struct.iter_unpack("<i", self.bytes_of(field, 4))]

    def tables(self, field: int) -> list[_Table]:
        place = self._place(field)
        if place is None:
            return []
        first = place + self._unsigned(place) + 4
        offsets = struct.iter_unpack("<I", self.bytes_of(field, 4))
        return [_Table(self.data, first + 4 * n + off) for n, (off,) in enumerate(offsets)]

    def _place(self, field: int) -> int | None:
        """Where a field begins; None where it has its default."""
        fields = self.at - struct.unpack_from("<i", self.data, self.at)[0]
        if fields < 0 or 4 + 2 * field >= self._short(fields):
            return None
        offset = self._short(fields + 4 + 2 * field)
        return self.at + offset if offset else None

    def _unsigned(self, at: int) -> int:
        return int(struct.unpack_from("<I", self.data, at)[0])

    def _short(self, at: int) -> int:
        return int(struct.unpack_from("<H", self.data, at)[0])


def read_tflite(data: bytes, path: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """The convolutions of a network of TensorFlow Lite, in its order.

    Returns:
        (weight, bias [o]) of each, in the type that the file stores: weight [o, i, k, k], of one
        that works on each channel for itself [o, 1, k, k], of a transposed one [i, o, k, k].

    Raises:
        DownloadError: damaged, cut short, or of operations or types that are not known.
    """
    if data[4:8] != b"TFL3":
        raise DownloadError(f"{path} is no network of TensorFlow Lite")
    try:
        return _convolutions(_Table(data, struct.unpack_from("<I", data)[0]), path)
    except (ValueError, LookupError, struct.error) as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(f"{path} is damaged: {error!r}") from None


def _convolutions(model: _Table, path: str) -> list[tuple[np.ndarray, np.ndarray]]:
    # the older of two fields for the number of an operation is a byte
    codes = [
        (max(code.number(0, "<b"), code.number(3, "<i")), code.bytes_of(1).decode("ascii"))
        for code in model.tables(1)
    ]
    buffers = model.tables(4)
    (graph,) = model.tables(2)
    tensors, operators = graph.tables(0), graph.tables(3)
    full = {}  # of what is stored in 16 bits and made 32 when it is used
    found = []
    for operator in operators:
        number, name = codes[operator.number(0, "<I")]
        inputs, outputs = operator.numbers(1), operator.numbers(2)
        if number == _DEQUANTIZE:
            full[outputs[0]] = inputs[0]
        elif number in (_CONVOLUTION, _DEPTHWISE) or name == _TRANSPOSED:
            weight, bias = (_constant(tensors[full.get(n, n)], buffers) for n in inputs[1:])
            # [o, k, k, i], or [1, k, k, o] where each channel is for itself
            order = (3, 0, 1, 2) if number != _CONVOLUTION else (0, 3, 1, 2)
            found.append((weight.transpose(order), bias))
        elif number not in _WITHOUT_WEIGHTS:
            kind = name or f"number {number}"
            raise DownloadError(f"{path}: hbr knows no operation {kind} of TensorFlow Lite")
    return found


def _constant(tensor: _Table, buffers: list[_Table]) -> np.ndarray:
    data = buffers[tensor.number(2, "<I")].bytes_of(0)
    return np.frombuffer(data, _TYPES[tensor.number(1, "<b")]).reshape(tensor.numbers(0))
