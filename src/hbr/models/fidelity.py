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
from pathlib import Path
from typing import TYPE_CHECKING

from hbr.config import ConfigError, check
from hbr.models.files import (
    SHARP,
    Header,
    model_format,
    read_header,
    read_tensors,
    write_with_config,
)
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


def write_two_ends(out: Path, faithful: Path, sharp: Path, fidelity: float) -> Path:
    """Join two model files of one configuration into one with two ends, in float16.

    Args:
        out: ends in `.safetensors`.
        faithful, sharp: model files with one end; the card is that of `faithful`.
        fidelity: the default of the new file.

    Raises:
        ConfigError: another fidelity.
        WeightsError: a file is missing, damaged, has two ends, or the two do not fit each other.
    """
    import torch

    check(0 <= fidelity <= 1, "fidelity", fidelity, "from 0, sharp, to 1, faithful")
    headers = [read_header(faithful), read_header(sharp)]
    for path, header in zip((faithful, sharp), headers, strict=True):
        if header.fidelity is not None:
            raise WeightsError(f"{path} has two ends already; one end of each is joined")
    if headers[0].config != headers[1].config or headers[0].shapes != headers[1].shapes:
        raise WeightsError(f"{faithful} and {sharp} are models of different configurations")
    other = dict(read_tensors(sharp, headers[1].shapes))
    tensors: dict[str, Tensor] = {}
    for name, tensor in read_tensors(faithful, headers[0].shapes):
        tensors[name] = tensor.half() if tensor.is_floating_point() else tensor.clone()
        if not torch.equal(tensor, other[name]):
            tensors[SHARP + name] = (other[name].float() - tensors[name].float()).half()
    if len(tensors) == len(other):
        raise WeightsError(f"{faithful} and {sharp} hold the same weights; there is nothing to mix")
    config = headers[0].config
    card = {**headers[0].card, "fidelity": repr(fidelity)}
    return write_with_config(out, model_format(config), config, tensors, card)
