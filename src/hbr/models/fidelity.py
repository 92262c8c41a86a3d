"""Model files with two ends, a faithful and a sharp one, and what lies between.

Two trainings, the second from the result of the first, stay in one valley of the loss: weights
interpolated between theirs give images between theirs. A file holds the faithful weights by their
names, for each that the second training changed the difference to the sharp one as
"sharp.{name}", and the default as `fidelity` in its metadata.

Source: deep network interpolation (Wang et al. 2019), as Real-ESRGAN mixes its two networks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hbr.config import ConfigError, check
from hbr.models.config import RestorerConfig
from hbr.models.files import (
    SHARP,
    Header,
    model_format,
    read_header,
    read_tensors,
    write_with_config,
)
from hbr.models.protocol import ColorFix
from hbr.weights import WeightsError

if TYPE_CHECKING:
    from torch import Tensor


def read_weights(
    path: Path, header: Header, fidelity: float | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Iterate over the weights of a model file, mixed where it has two ends.

    `fidelity` is from 0, sharp, to 1, faithful; None is the file's default.

    Raises:
        ConfigError: another fidelity, or the file has one end.
    """
    part = choose_fidelity(path, header.fidelity, fidelity)
    if part is None or part == 1:
        yield from read_tensors(path, header.shapes)
        return
    # each weight, and its difference behind it: opening the file for each takes long
    pairs = ((name, SHARP + name) if name in header.sharp else (name,) for name in header.shapes)
    tensors = read_tensors(path, itertools.chain.from_iterable(pairs))
    for name, tensor in tensors:
        if name in header.sharp:
            _, difference = next(tensors)
            tensor = tensor.float() + (1 - part) * difference.float()
        yield name, tensor


def choose_fidelity(path: Path, default: float | None, fidelity: float | None) -> float | None:
    """The fidelity that a model file is read with.

    Raises:
        ConfigError: another fidelity, or the file has one end.
    """
    if fidelity is None:
        return default
    check(0 <= fidelity <= 1, "fidelity", fidelity, "from 0, sharp, to 1, faithful")
    if default is None:
        raise ConfigError(
            f"fidelity is {fidelity:g}, but {path.name} has one end only; leave it out"
        )
    return fidelity


def write_two_ends(
    out: Path, faithful: Path, sharp: Path, fidelity: float, color: ColorFix | None = None
) -> Path:
    """Join two model files of one configuration into one with two ends, in float16.

    Args:
        out: ends in `.safetensors`.
        faithful, sharp: model files with one end; the card is that of `faithful`.
        fidelity: the default of the new file.
        color: its colour fix, in place of that of the two; one-step models alone have a choice.

    Raises:
        ConfigError: another fidelity, or the models have no choice of a colour fix.
        WeightsError: a file is missing, damaged, has two ends, or the two do not fit each other.
    """
    import torch

    check(0 <= fidelity <= 1, "fidelity", fidelity, "from 0, sharp, to 1, faithful")
    header = _shared_header(faithful, sharp, color)
    other = dict(read_tensors(sharp, header.shapes))
    tensors: dict[str, Tensor] = {}
    for name, tensor in read_tensors(faithful, header.shapes):
        tensors[name] = tensor.half() if tensor.is_floating_point() else tensor.clone()
        if not torch.equal(tensor, other[name]):
            tensors[SHARP + name] = (other[name].float() - tensors[name].float()).half()
    if len(tensors) == len(other):
        raise WeightsError(f"{faithful} and {sharp} hold the same weights; there is nothing to mix")
    card = {**header.card, "fidelity": repr(fidelity)}
    return write_with_config(out, model_format(header.config), header.config, tensors, card)


def write_blend(out: Path, first: Path, second: Path, share: float) -> Path:
    """Blend two model files of one configuration into one, by interpolating their weights.

    Args:
        out: ends in `.safetensors`.
        first, second: model files with one end, the second trained on from the first; the card is
            that of `second`.
        share: of `second`, from 0 to 1.

    Raises:
        ConfigError: another share.
        WeightsError: a file is missing, damaged, has two ends, or the two do not fit each other.
    """
    check(0 <= share <= 1, "share", share, "from 0, FIRST, to 1, SECOND")
    header = _shared_header(second, first)
    other = dict(read_tensors(first, header.shapes))
    tensors = {
        name: other[name].lerp(tensor, share) if tensor.is_floating_point() else tensor.clone()
        for name, tensor in read_tensors(second, header.shapes)
    }
    return write_with_config(out, model_format(header.config), header.config, tensors, header.card)


def write_extract(out: Path, path: Path, fidelity: float) -> Path:
    """Write one of the models in a file with two ends as a file with one end, in float32.

    Args:
        out: ends in `.safetensors`.
        path: a model file with two ends; the card is its own.
        fidelity: which one, from 0, sharp, to 1, faithful.

    Raises:
        ConfigError: another fidelity, or the file has one end.
        WeightsError: the file is missing or damaged.
    """
    header = read_header(path)
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor.clone()
        for name, tensor in read_weights(path, header, fidelity)
    }
    card = {name: value for name, value in header.card.items() if name != "fidelity"}
    return write_with_config(out, model_format(header.config), header.config, tensors, card)


def _shared_header(one: Path, other: Path, color: ColorFix | None = None) -> Header:
    """The header of the first of two files of one configuration and with one end each.

    Both get a colour fix, if one is given.
    """
    headers = [read_header(one), read_header(other)]
    if color is not None:
        headers = [_with_color(header, color) for header in headers]
    for path, header in zip((one, other), headers, strict=True):
        if header.fidelity is not None:
            raise WeightsError(f"{path} has two ends already; models with one end are mixed")
    if headers[0].config != headers[1].config or headers[0].shapes != headers[1].shapes:
        raise WeightsError(f"{one} and {other} are models of different configurations")
    return headers[0]


def _with_color(header: Header, color: ColorFix) -> Header:
    if not isinstance(header.config, RestorerConfig):
        kind = header.config.kind
        raise ConfigError(f"color is {color!r}, but models of kind {kind} have no choice of it")
    return replace(header, config=replace(header.config, color=color))
