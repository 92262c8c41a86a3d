"""Quantising a graph: convolutions with weights and activations of 8 bits, the rest as it is.

Only convolutions of what an activation function made are quantised: they take nearly all of the
time, and their inputs have a narrow range. What sees the residual stream or the image itself
(shortcuts, down- and upsampling, the first layers) and the last layers of the parts keep their
precision, and so do the outputs of all convolutions.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbr.models.graphs import TILES, BackendError

# What makes an activation; SiLU is exported as x · Sigmoid(x).
_ACTIVATIONS = ("Relu", "LeakyRelu", "Gelu", "Elu")
# As layers that end a part are called in diffusers and in the refiner.
_LAST = "conv_out"


def quantise_graph(graph: Path, out: Path, tiles: Sequence[NDArray[np.float32]]) -> int:
    """Write a graph with quantised convolutions.

    Weights have one scale for each output channel, activations one for each convolution, by the
    least and the greatest value that they have on the tiles.

    Args:
        graph: `graph.onnx` of a model.
        out: the new file, with the scales in it.
        tiles: [1, 3, t_h, t_w] in [0, 1] each, for calibration.

    Returns:
        the number of quantised convolutions.

    Raises:
        BackendError: there is none that could be.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    names = quantised_convolutions(onnx.load(os.fspath(graph)).graph.node)
    if not names:
        raise BackendError("the model has no convolutions that can be quantised")
    logging.getLogger().disabled, before = True, logging.getLogger().disabled  # it gives advice
    try:
        quantize_static(
            os.fspath(graph),
            os.fspath(out),
            _Tiles(tiles),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=names,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Conv"]},
        )
    finally:
        logging.getLogger().disabled = before
    return len(names)


def quantised_convolutions(nodes: Sequence[Any]) -> list[str]:
    """The names of the convolutions to quantise, of the nodes of an ONNX graph."""
    made_by = {output: node for node in nodes for output in node.output}

    def is_activation(name: str) -> bool:
        node = made_by.get(name)
        if node is None or node.op_type in _ACTIVATIONS:
            return node is not None
        factors = [made_by.get(given) for given in node.input]
        return node.op_type == "Mul" and any(f and f.op_type == "Sigmoid" for f in factors)

    return [
        node.name
        for node in nodes
        if node.op_type == "Conv" and _LAST not in node.name and is_activation(node.input[0])
    ]


class _Tiles:
    """Tiles as ONNX Runtime takes them for calibration."""

    def __init__(self, tiles: Sequence[NDArray[np.float32]]) -> None:
        self._left: Iterator[NDArray[np.float32]] = iter(tiles)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        tile = next(self._left, None)
        return None if tile is None else {TILES: tile}
