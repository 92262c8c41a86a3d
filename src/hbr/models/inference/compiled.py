"""One-step models compiled by torch (inductor) for tiles of one size.

Shapes: b tiles, t_h t_w a tile in pixels.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hbr.errors import one_line
from hbr.models.graphs import BackendError
from hbr.models.inference.recorded import RecordedModel
from hbr.models.inference.restorer import FoldedRestorer
from hbr.models.protocol import Backend, Capabilities, Conditions, Model, Place
from hbr.weights import weights_folder

# What torch calls unless CXX names another.
_COMPILERS = {"darwin": "clang++", "win32": "cl"}


class CompiledModel:
    """A model that runs compiled on tiles of its native size; see `hbr.models.protocol.Model`.

    On tiles of other sizes it runs as it is: each size would have to be compiled by itself.
    """

    backend: Backend = "compiled"

    def __init__(self, model: Model) -> None:
        """Wrap a loaded model; torch compiles it when it meets the first tile."""
        self.capabilities: Capabilities = replace(model.capabilities, fixed_tiles=True)
        self.device, self.dtype = model.device, model.dtype
        self._model = model
        self._compiled = torch.compile(_function_of(model), dynamic=False, fullgraph=True)

    def restore(self, tiles: Tensor, places: Sequence[Place], conditions: Conditions) -> Tensor:
        """See `Model.restore`."""
        edge = self.capabilities.native_size
        if tuple(tiles.shape[2:]) != (edge, edge) or conditions.tokens or conditions.maps:
            return self._model.restore(tiles, places, conditions)
        # the prompt takes little time and has much Python, which is not compiled
        prompt = self._model.prompt(tiles) if isinstance(self._model, FoldedRestorer) else None
        # one by one, since each number of tiles would have to be compiled by itself too
        n = len(tiles)
        prompts = [None] * n if prompt is None else prompt.expand(n, -1, -1).split(1)
        pairs = zip(tiles.split(1), prompts, strict=True)
        return torch.cat([self._compiled(tile, p) for tile, p in pairs])


def _function_of(model: Model) -> Callable[[Tensor, Tensor | None], Tensor]:
    """What is compiled of a model: tiles and the prompt, if it has one, → restored tiles."""
    if isinstance(model, FoldedRestorer):
        return model.forward
    nothing = Conditions()
    return lambda tiles, prompt: model.restore(tiles, [], nothing)


def compile_model(model: Model) -> Model:
    """Compile a model, or take what was compiled before, and run it once.

    The kernels lie in the folder of the weights unless TORCHINDUCTOR_CACHE_DIR names another.

    Raises:
        BackendError: there is no C++ compiler, or torch cannot compile the model.
    """
    if isinstance(model, RecordedModel):
        return RecordedModel(compile_model(model.model))
    needs = model.capabilities
    if needs.samples or needs.takes_prompt:
        why = "restores in many steps" if needs.samples else "makes texts of what it sees"
        raise BackendError(f"a model that {why} cannot be compiled")
    check_compiler()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.fspath(weights_folder() / "compiled"))
    compiled = CompiledModel(model)
    edge = needs.native_size
    tile = torch.zeros(1, 3, edge, edge, device=model.device)
    try:
        with torch.inference_mode():
            compiled.restore(tile.contiguous(memory_format=torch.channels_last), [], Conditions())
    except Exception as error:  # of torch, of the compiler or of what it made
        raise BackendError(f"torch cannot compile the model: {one_line(error, 200)}") from error
    return compiled


def check_compiler() -> None:
    """Check that there is the C++ compiler that torch calls.

    Raises:
        BackendError: there is none.
    """
    name = os.environ.get("CXX") or _COMPILERS.get(sys.platform, "g++")
    if shutil.which(name) is None:
        raise BackendError(
            f"the backend compiled needs a C++ compiler, and {name} is not there; install it or "
            "name another in CXX"
        )
