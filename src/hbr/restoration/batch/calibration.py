"""Calibrating a model for 8 bits: scales of its activations by photos, and what they cost.

Shapes: t_h t_w a tile in pixels.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hbr.config import to_dict
from hbr.errors import PhotoError
from hbr.files import replacing, sha256, write_text
from hbr.image import read_photo
from hbr.image.paths import is_photo_name, walk_files
from hbr.image.search import spread
from hbr.models.graph_files import (
    CALIBRATION,
    Calibration,
    CalibrationError,
    circumstances,
    graph_folder,
    load_graph,
)
from hbr.models.graphs import GRAPH, INT8_GRAPH, GraphModel, check_installed
from hbr.models.protocol import Capabilities
from hbr.restoration.batch.backends import Wanted
from hbr.restoration.passes.tiling import plan_tiles
from hbr.restoration.pixels.color import to_unit

_PHOTOS = 16  # one tile of each; half of them give the scales

Tile = NDArray[np.float32]


def calibrate(wanted: Wanted, photos: Path) -> tuple[Path, Calibration]:
    """Make the quantised graph of a model, with the scales of its activations by photos.

    Of 16 photos, evenly spread by name, the middle tile is taken. Every other one gives the scales;
    on the rest the result is compared with that of float32.

    Args:
        wanted: the model, its fidelity and its decoder.
        photos: a folder of such photos as are to be restored.

    Returns:
        the folder of the graph, and what was found, which lies there too.

    Raises:
        BackendError: OpenVINO or ONNX Runtime is missing, or the model cannot be such a graph.
        CalibrationError: the folder has fewer than two photos that can be read.
        WeightsError: the model is missing or damaged.
        OSError: a folder cannot be read or written.
    """
    check_installed("onnx", "onnxruntime", "onnx")
    model, decoder = wanted.files
    exact, used = load_graph(model, "cpu", "float32", wanted.fidelity, decoder, "openvino")
    folder = graph_folder(model.sha256, used, decoder)
    tiles = _tiles(photos, exact.capabilities)
    if len(tiles) < 2:
        raise CalibrationError(
            f"{photos} has {len(tiles)} photos that can be read; a calibration needs 2 or more"
        )
    from hbr.models.exporting.quantising import quantise_graph

    files = list(tiles)
    with replacing(folder / INT8_GRAPH) as part:
        layers = quantise_graph(folder / GRAPH, part, [tiles[file] for file in files[::2]])
    quantised = GraphModel(folder, exact.capabilities, "openvino", "int8")
    made = Calibration(
        sha256=sha256(folder / INT8_GRAPH),
        made_with=circumstances(),
        photos=tuple(sha256(file) for file in files[::2]),
        layers=layers,
        psnr=tuple(_psnr(quantised, exact, tiles[file]) for file in files[1::2]),
    )
    write_text(folder / CALIBRATION, json.dumps(to_dict(made), indent=1) + "\n")
    return folder, made


def _tiles(photos: Path, capabilities: Capabilities) -> dict[Path, Tile]:
    """The middle tile [1, 3, t_h, t_w] of each photo that can be read, by its file."""
    names = sorted(walk_files(photos, is_photo_name))
    tiles: dict[Path, Tile] = {}
    for name in spread(names, _PHOTOS):
        try:
            pixels = read_photo(photos / name).pixels
        except PhotoError:
            continue
        height, width = pixels.shape[:2]
        plan = plan_tiles(height, width, capabilities, capabilities.native_size)
        middle = (len(plan.rows.starts) // 2, len(plan.columns.starts) // 2)
        tiles[photos / name] = to_unit(plan.read(pixels, *middle))
    return tiles


def _psnr(model: GraphModel, exact: GraphModel, tile: Tile) -> float:
    """PSNR of what a model makes of a tile to what another does, over R, G and B, in dB."""
    made, wanted = (m.restore_arrays(tile).clip(0, 1).astype(np.float64) for m in (model, exact))
    error = float(np.square(made - wanted).mean())
    return round(-10 * math.log10(max(error, 1e-12)), 2)
