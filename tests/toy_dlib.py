"""A small network in dlib's serialisation, and what dlib computes with it."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ALIAS = [1, 1, 2, 3, 4]
TRAILER = b"110" + 3 * (b"\x01\x02" + 4 * b"\x01\x00")


def number(value: int) -> bytes:
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def numbers(*values: int) -> bytes:
    return b"".join(map(number, values))


def text(value: str) -> bytes:
    return number(len(value)) + value.encode()


def real(value: float) -> bytes:
    mantissa, exponent = math.frexp(value)
    return numbers(int(mantissa * 2**24), exponent - 24)


def tensor(values: np.ndarray) -> bytes:
    return numbers(2, values.size, 1, 1, 1) + values.astype("<f4").tobytes()


class ToyNetwork:
    """The layers of dlib's face embedding, narrow, with random values."""

    def __init__(self, width: int) -> None:
        rng = np.random.default_rng(5)
        self.plan = [(width, width, 1)] * 3
        for i, o, n in ((1, 2, 3), (2, 4, 2), (4, 8, 2), (8, 8, 0)):
            self.plan += [(i * width, o * width, 2), *[(o * width, o * width, 1)] * n]
        shapes = [(width, 3, 7, 7)]
        for i, o, _ in self.plan:
            shapes += [(o, i, 3, 3), (o, o, 3, 3)]
        self.layers = [
            (
                (rng.standard_normal(s) / math.sqrt(math.prod(s[1:]))).astype(np.float32),
                (rng.standard_normal(s[0]) * 0.1).astype(np.float32),
                rng.uniform(0.5, 1.5, s[0]).astype(np.float32),
                (rng.standard_normal(s[0]) * 0.1).astype(np.float32),
            )
            for s in shapes
        ]
        self.matrix = rng.standard_normal((8 * width, 128)).astype(np.float32)

    def file(self, *, loss: str = "loss_metric_2", more: bytes = b"") -> bytes:
        """The .dat file; `more` comes before the last layer."""
        parts = [numbers(1), text(loss), real(0.04), real(0.6)]
        parts += [numbers(*[2] * 20, 1, 3), text("input_rgb_image_sized")]
        parts += [*map(real, (122.782, 117.001, 104.298)), numbers(150, 150)]
        for n, (weight, bias, scale, offset) in enumerate(self.layers):
            parts += [text("con_4"), tensor(np.concatenate([weight.ravel(), bias]))]
            parts += [numbers(*[1] * 7, 1, *weight.shape, *ALIAS), 4 * real(1.0), TRAILER]
            parts += [numbers(1)] if n == 0 else []
            parts += [text("affine_"), tensor(np.concatenate([scale, offset]))]
            parts += [numbers(*ALIAS, *ALIAS, 0), TRAILER, text("relu_"), TRAILER]
            parts += [text("max_pool_2"), numbers(3, 3, 2, 2, 0, 0), TRAILER] if n == 0 else []
            parts += [text("add_prev_"), TRAILER] if n and n % 2 == 0 else []
        parts += [more, text("avg_pool_2"), numbers(0, 0, 1, 1, 0, 0), TRAILER]
        parts += [text("fc_2"), numbers(128, len(self.matrix)), tensor(self.matrix)]
        parts += [numbers(*ALIAS, *ALIAS, 1), 4 * real(1.0), TRAILER]
        return b"".join(parts)

    def embed(self, image: Tensor) -> Tensor:
        """[b, 3, 150, 150] in 0-255 → [b, 128], layer by layer as dlib has them."""
        mean = torch.tensor([122.782, 117.001, 104.298])[:, None, None]
        x = F.max_pool2d(self._layer(0, (image - mean) / 256, 2, 0).relu(), 3, 2)
        for n, (_, _, stride) in enumerate(self.plan):
            inner = self._layer(2 * n + 1, x, stride, 2 - stride).relu()
            out = self._layer(2 * n + 2, inner, 1, 1)
            by = F.avg_pool2d(x, 2, 2) if stride == 2 else x
            sizes = np.maximum(out.shape, by.shape).tolist()
            total = torch.zeros(sizes)
            for part in (out, by):
                _, c, h, w = part.shape
                total[:, :c, :h, :w] += part
            x = total.relu()
        return x.mean(dim=(2, 3)) @ torch.from_numpy(self.matrix)

    def _layer(self, n: int, x: Tensor, stride: int, padding: int) -> Tensor:
        weight, bias, scale, offset = map(torch.from_numpy, self.layers[n])
        x = F.conv2d(x, weight, bias, stride, padding)
        return x * scale[:, None, None] + offset[:, None, None]
