"""Texts among the weights, so that one file holds all that a model needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from hbr.weights import WeightsError

T = TypeVar("T")


class TextBuffer(nn.Module, Generic[T]):
    """A text of any length, as its UTF-8 bytes in a buffer; empty until it is set or loaded."""

    data: Tensor

    def __init__(self, parse: Callable[[str], T]) -> None:
        super().__init__()
        self.register_buffer("data", torch.zeros(0, dtype=torch.uint8))
        self._parse = parse
        self._parsed: tuple[Tensor, T] | None = None

    def put(self, text: str) -> None:
        """Set the text."""
        self.data = as_bytes(text).to(self.data.device)

    @property
    def value(self) -> T:
        """What `parse` makes of the text; called once for each text.

        Raises:
            WeightsError: the buffer does not hold a text.
        """
        if self._parsed is None or self._parsed[0] is not self.data:
            try:
                text = bytes(self.data.cpu().tolist()).decode()
            except (UnicodeDecodeError, ValueError, TypeError):
                raise WeightsError("a text in the model file is damaged") from None
            self._parsed = (self.data, self._parse(text))
        return self._parsed[1]

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        given = state_dict.get(f"{prefix}data")
        if isinstance(given, Tensor):
            # as long as what is loaded
            self.data = torch.empty_like(given, device=self.data.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def as_bytes(text: str) -> Tensor:
    """The buffer of a text: uint8 [bytes]."""
    return torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy())


def fit_text_buffers(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Give every text buffer of `model` the length that it has in a file of these shapes."""
    for name, module in model.named_modules():
        shape = shapes.get(f"{name}.data", ())
        if isinstance(module, TextBuffer) and len(shape) == 1:
            module.data = torch.zeros(shape, dtype=torch.uint8)
