"""Small files of TensorFlow Lite, written with the library flatbuffers.

Fields are known by their numbers in TensorFlow's schema.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from torch import nn

CODES = {
    "conv": (3, ""),
    "depthwise": (4, ""),
    "dequantize": (6, ""),
    "relu": (19, ""),
    "transposed": (32, "Convolution2DTransposeBias"),
    "unknown": (90, ""),
    "custom": (32, "Own"),
}

Layer = tuple[str, np.ndarray, np.ndarray]
"""A kind of `CODES`, weight and bias."""


def convolutions(network: nn.Module) -> list[Layer]:
    """The convolutions of a network, in its order."""
    found = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            kind = "depthwise" if layer.groups > 1 else "conv"
            kind = "transposed" if isinstance(layer, nn.ConvTranspose2d) else kind
            assert layer.bias is not None
            weight, bias = (p.detach().numpy() for p in (layer.weight, layer.bias))
            found.append((kind, weight, bias))
    return found


def tflite_file(layers: Sequence[Layer], more: str | None = None) -> bytes:
    """A file with these convolutions, their weights in float16, and an operation of kind `more`."""
    writer = _Writer()
    for kind, weight, bias in layers:
        order = (0, 2, 3, 1) if kind == "conv" else (1, 2, 3, 0)
        inputs = [0, writer.constant(weight.transpose(order)), writer.constant(bias)]
        writer.operator(kind, inputs, [0])
        writer.operator("relu", [0], [0])
    if more:
        writer.operator(more, [0], [0])
    return writer.finish()


class _Writer:
    def __init__(self) -> None:
        self._builder = flatbuffers.Builder(0)
        self._buffers = [self._table(1, {}, {})]  # the first is always empty
        self._tensors = [self._table(4, {0: self._ints([1, 8, 8, 3])}, {})]
        self._operators: list[int] = []

    def constant(self, array: np.ndarray) -> int:
        """A constant in 16 bits, and the operation that makes it 32: the tensor of the latter."""
        data = self._builder.CreateByteVector(array.astype("<f2").tobytes())
        self._buffers.append(self._table(1, {0: data}, {}))
        fields = {1: ("Int8", 1), 2: ("Uint32", len(self._buffers) - 1)}
        self._tensors.append(self._table(4, {0: self._ints(array.shape)}, fields))
        self._tensors.append(self._table(4, {0: self._ints(array.shape)}, {}))
        last = len(self._tensors) - 1
        self.operator("dequantize", [last - 1], [last])
        return last

    def operator(self, kind: str, inputs: list[int], outputs: list[int]) -> None:
        fields = {1: self._ints(inputs), 2: self._ints(outputs)}
        number = list(CODES).index(kind)
        self._operators.append(self._table(5, fields, {0: ("Uint32", number)}))

    def finish(self) -> bytes:
        kinds = []
        for number, name in CODES.values():
            text = {1: self._builder.CreateString(name)} if name else {}
            kinds.append(self._table(4, text, {0: ("Int8", number), 3: ("Int32", number)}))
        parts = {0: self._vector(self._tensors), 3: self._vector(self._operators)}
        graph = self._table(5, parts, {})
        vectors = {1: kinds, 2: [graph], 4: self._buffers}
        offsets = {field: self._vector(tables) for field, tables in vectors.items()}
        self._builder.Finish(self._table(5, offsets, {0: ("Uint32", 3)}), b"TFL3")
        return bytes(self._builder.Output())

    def _vector(self, offsets: list[int]) -> int:
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())

    def _table(
        self, size: int, offsets: Mapping[int, int], numbers: Mapping[int, tuple[str, int]]
    ) -> int:
        self._builder.StartObject(size)
        for field, offset in offsets.items():
            self._builder.PrependUOffsetTRelativeSlot(field, offset, 0)
        for field, (kind, number) in numbers.items():
            getattr(self._builder, f"Prepend{kind}Slot")(field, number, 0)
        return int(self._builder.EndObject())

    def _ints(self, values: Any) -> int:
        return int(self._builder.CreateNumpyVector(np.array(values, np.int32)))
