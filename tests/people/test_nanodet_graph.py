"""NanoDet beside the published graph, computed node by node."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from hbr.people.nanodet import N_CLASSES, NanoDet
from hbr.weights import PackageFile, entries
from hbr.weights.packages import read_members


@pytest.mark.slow
@pytest.mark.weights
def test_nanodet_computes_what_its_graph_says(package_weights: Path, tmp_path: Path) -> None:
    (source,) = entries()["nanodet"].files[0].sources
    assert isinstance(source, PackageFile)
    members = read_members(source, tmp_path)
    model = json.loads(members["models/nanodet.json"])
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 416, 416))).float()
    expected = walk(model, members["models/nanodet.bin"], image)
    network = NanoDet()
    network.load_state_dict(load_file(package_weights / "nanodet" / "nanodet.safetensors"))
    for level, scores, distances in zip(network(image), expected[:3], expected[3:], strict=True):
        flat = level.flatten(2).transpose(1, 2)
        torch.testing.assert_close(flat[..., :N_CLASSES].sigmoid(), scores, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(flat[..., N_CLASSES:], distances, atol=1e-4, rtol=1e-4)


def walk(model: dict[str, Any], data: bytes, image: Tensor) -> list[Tensor]:
    """What a graph of TensorFlow.js computes, in TensorFlow's own layout of pixels."""
    values, at = {"input_1": image}, 0
    for row in model["weightsManifest"][0]["weights"]:
        is_float, count = row["dtype"] == "float32", int(np.prod(row["shape"]))
        kind, size = ("<f2", 2) if is_float else ("<i4", 4)
        array = np.frombuffer(data, kind, count, at).reshape(row["shape"])
        values[row["name"]] = torch.tensor(array.astype("float32" if is_float else "int64"))
        at += size * count
    for node in model["modelTopology"]["node"]:
        if "input" in node:
            out = OPERATIONS[node["op"]](node, *(values[name] for name in node["input"]))
            if isinstance(out, tuple):
                values |= {f"{node['name']}:{n}": one for n, one in enumerate(out)}
                out = out[0]
            values[node["name"]] = out
    return [values[f"Identity{number}"] for number in ("", "_1", "_2", "_3", "_4", "_5")]


def listed(node: dict[str, Any], name: str) -> int:
    return int(node["attr"][name]["list"]["i"][1])


def planes(function: Callable[..., Tensor], x: Tensor, *args: Any, **options: Any) -> Tensor:
    return function(x.permute(0, 3, 1, 2), *args, **options).permute(0, 2, 3, 1)


def pad(node: dict[str, Any], x: Tensor, edges: Tensor, *value: Tensor) -> Tensor:
    flat = [int(n) for row in reversed(edges.tolist()) for n in row]
    return F.pad(x, flat, value=float(value[0]) if value else 0.0)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": lambda node, x, y: x + y,
    "AddV2": lambda node, x, y: x + y,
    "Transpose": lambda node, x, order: x.permute(*order.tolist()),
    "Pad": pad,
    "PadV2": pad,
    "Conv2D": lambda node, x, kernel: planes(
        F.conv2d, x, kernel.permute(3, 2, 0, 1), stride=listed(node, "strides")
    ),
    "LeakyRelu": lambda node, x: F.leaky_relu(x, node["attr"]["alpha"]["f"]),
    "MaxPool": lambda node, x: planes(
        F.max_pool2d, x, listed(node, "ksize"), listed(node, "strides")
    ),
    "ResizeBilinear": lambda node, x, size: planes(
        F.interpolate, x, size.tolist(), mode="bilinear"
    ),
    "ConcatV2": lambda node, *x: torch.cat(x[:-1], dim=int(x[-1])),
    "SplitV": lambda node, x, sizes, axis: x.split(sizes.tolist(), dim=int(axis)),
    "Sigmoid": lambda node, x: x.sigmoid(),
    "SparseToDense": lambda node, at, size, *_: torch.zeros(size.tolist(), dtype=torch.int64),
    "Reshape": lambda node, x, shape: x.reshape(shape.tolist()),
    "Identity": lambda node, x: x,
}
