"""The layers that rewritten models are made of.

Those of diffusers divide their output by a factor, which is 1 in every network built here.

Shapes: b batch, c channels, h w size, n m tokens, q queries, d width.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hbr.models.inference.norms import add_to, have_kernels, normalise
from hbr.models.refiner import Refiner

# From this many tokens on, attention by blocks of queries is faster than torch's on CPUs; more
# queries in a block are not.
_FEWEST_TOKENS, _QUERIES = 256, 512


class PosteriorMean(nn.Module):
    """`quant_conv`, then the mode of the posterior [b, 2 c, h, w] → [b, c, h, w], scaled."""

    def __init__(self, conv: nn.Module, scale: float) -> None:
        super().__init__()
        self.conv, self.scale = conv, scale

    def forward(self, x: Tensor) -> Tensor:
        """Of the encoder's output [b, 2 c, h, w]."""
        return cast(Tensor, self.conv(x).chunk(2, dim=1)[0]) * self.scale


class PostQuant(nn.Module):
    """Scaling, then `post_quant_conv` if there is one: z [b, c, h, w] → the same shape."""

    def __init__(self, conv: nn.Conv2d | None, scale: float) -> None:
        super().__init__()
        self.conv, self.scale = conv, scale

    def forward(self, z: Tensor) -> Tensor:
        """Of a latent [b, c, h, w]."""
        z = z * self.scale
        return z if self.conv is None else cast(Tensor, self.conv(z.to(self.conv.weight.dtype)))


class Shift(nn.Module):
    """z [b, c, h, w] plus a constant [c]."""

    shift: Tensor

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift.view(-1, 1, 1))

    def forward(self, z: Tensor) -> Tensor:
        """Of a latent [b, c, h, w]."""
        return z + self.shift


class Picture(nn.Module):
    """The decoder's output [b, 3 f², h, w] as an image [b, 3, f h, f w], about [0, 1], refined."""

    def __init__(self, patch_size: int, refiner: nn.Module | None) -> None:
        super().__init__()
        self.patch_size, self.refiner = patch_size, refiner

    def forward(self, x: Tensor, lq: Tensor | None = None) -> Tensor:
        """The image, float32 (or float64); `lq` as `Refiner.forward` takes it."""
        image = F.pixel_shuffle(x, self.patch_size)
        image = image.to(torch.promote_types(x.dtype, torch.float32)) * 0.5 + 0.5
        return image if self.refiner is None else cast(Tensor, self.refiner(image, lq))


class RefinedPicture(nn.Module):
    """`Picture` with a refiner that works on what the decoder gives.

    The refiner maps the image back to [-1, 1] and to patches of its own size; from the decoder's
    patches that is one change of places, and the image itself is made once, at the end.
    """

    def __init__(self, patch_size: int, refiner: Refiner) -> None:
        """Take over a refiner; its patches divide those of the decoder."""
        super().__init__()
        self.patch_size, self.refiner = patch_size, refiner

    def forward(self, x: Tensor, lq: Tensor | None = None) -> Tensor:
        """[b, 3 f², h, w] → image [b, 3, f h, f w], about [0, 1], float32 (or float64).

        `lq` is the input of the model; only a refiner that sees it needs it.
        """
        refiner = self.refiner
        r, k = refiner.patch_size, self.patch_size // refiner.patch_size
        x = rearrange(
            x, "b (c k1 r1 k2 r2) h w -> b (c r1 r2) (h k1) (w k2)", k1=k, k2=k, r1=r, r2=r
        )
        seen = x
        if refiner.sees_input:
            lq = F.pixel_unshuffle(cast(Tensor, lq) * 2 - 1, r)
            seen = torch.cat([x, lq.to(x)], dim=1)
        y = refiner.conv_in(seen)
        for block in cast(Any, refiner.blocks):
            z = F.silu(block.conv1(F.silu(y)), inplace=True)
            y = block.conv2(z).add_(y)
        y = refiner.conv_out(F.silu(y, inplace=True))
        dtype = torch.promote_types(x.dtype, torch.float32)
        return F.pixel_shuffle(x.to(dtype).add_(y).mul_(0.5).add_(0.5), r)


class Constant(nn.Module):
    """A tensor that is computed once, whatever it was computed of."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value.detach())

    def forward(self, *_: Tensor) -> Tensor:
        """The tensor."""
        return self.value


class NoTimeEmbedding(nn.Module):
    """Stands where diffusers embeds the timestep, once that is part of the blocks' biases."""

    def forward(self, timestep: Tensor, condition: Any = None) -> Tensor:
        """The timestep itself, which no block looks at."""
        return timestep


class ResidualBlock(nn.Module):
    """A residual block of diffusers for inference: x + conv(SiLU(norm(conv(SiLU(norm(x))))))."""

    def __init__(self, block: Any, bias: Tensor | None = None) -> None:
        """Take over a `ResnetBlock2D`; `bias` [c] is what the timestep adds to the first conv."""
        super().__init__()
        self.norm1, self.conv1 = block.norm1, block.conv1
        self.norm2, self.conv2 = block.norm2, block.conv2
        self.shortcut: Any = block.conv_shortcut
        if bias is not None:
            self.conv1.bias = nn.Parameter(self.conv1.bias.detach() + bias)
        convs = (self.conv1, self.conv2, self.conv2 if self.shortcut is None else self.shortcut)
        self.plain = all(type(c) is nn.Conv2d and c.bias is not None for c in convs)  # no LoRA

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        """[b, c, h, w] → [b, c', h, w]; the embedding of the timestep is not looked at."""
        if self.plain and have_kernels(x):
            return self._with_kernels(x)
        y = self.conv1(F.silu(self.norm1(x), inplace=True))
        y = F.silu(self.norm2(y), inplace=True)
        x = x if self.shortcut is None else self.shortcut(x)
        return cast(Tensor, self.conv2(y).add_(x))

    def _with_kernels(self, x: Tensor) -> Tensor:
        """The same, where biases are added in passes that are made anyway."""
        y = _without_bias(self.conv1, normalise(x, self.norm1, silu=True))
        y = normalise(y, self.norm2, self.conv1.bias, silu=True)
        y, bias = _without_bias(self.conv2, y), self.conv2.bias
        if self.shortcut is not None:
            x, bias = _without_bias(self.shortcut, x), bias + self.shortcut.bias
        return add_to(y, bias, x)


def _without_bias(conv: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.weight, None, conv.stride, conv.padding)


class FoldedUpsampling(nn.Module):
    """Nearest-neighbour upsampling by 2 and the 3×3 convolution behind it."""

    def __init__(self, kernel: Tensor, bias: Tensor) -> None:
        """Take the kernel that `upsampling_kernel` makes, and the convolution's bias."""
        super().__init__()
        self.weight, self.bias = nn.Parameter(kernel), nn.Parameter(bias)

    def forward(self, x: Tensor, output_size: torch.Size | None = None) -> Tensor:
        """[b, c, h, w] → [b, c', 2 h, 2 w], or another size, which a U-Net asks for odd latents."""
        doubled = torch.Size(2 * edge for edge in x.shape[2:])
        if output_size in (None, doubled):
            if have_kernels(x):
                y = F.conv_transpose2d(x, self.weight, None, stride=2, padding=1)
                return add_to(y, self.bias)
            return F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1)
        rows = [[0.0, 0, 0, 1], [-1, 1, 0, 0], [1, 0, 0, 0]]  # undoes `upsampling_kernel`
        taps = torch.tensor(rows, dtype=x.dtype, device=x.device)
        weight = torch.einsum("y p, x q, i o p q -> o i y x", taps, taps, self.weight)
        return F.conv2d(F.interpolate(x, output_size), weight, self.bias, padding=1)


def upsampling_kernel(weight: Tensor) -> Tensor:
    """The kernel of a transposed convolution for upsampling by 2, then convolving 3×3.

    After nearest-neighbour upsampling, the 3 rows under a kernel come from 2 rows of the input:
    rows 0, 1+2 of the kernel see them at even rows of the output, rows 0+1, 2 at odd ones. That
    makes four kernels of 2×2, one for each phase, 16 multiplications in place of 36. Interleaved,
    they are the 4×4 kernel of a transposed convolution with stride 2 and padding 1.

    Args:
        weight: [o, i, 3, 3] of the convolution, which pads with one zero.

    Returns:
        [i, o, 4, 4], of the same dtype.
    """
    # the row of the kernel at i, of the transposed one: 3 − 2 a − r for tap a of phase r
    taps = torch.tensor(
        [[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=weight.dtype, device=weight.device
    )
    return torch.einsum("p y, q x, o i y x -> i o p q", taps, taps, weight)


class JoinedAttention(nn.Module):
    """An attention of diffusers for inference, with one product for what has the same input."""

    def __init__(self, attention: Any) -> None:
        """Take over an `Attention` of a U-Net's transformer or of an autoencoder's middle."""
        super().__init__()
        self.heads = attention.heads
        self.norm = attention.group_norm
        self.residual = attention.residual_connection
        self.out = attention.to_out[0]
        self.crosses = attention.is_cross_attention
        q, k, v = attention.to_q, attention.to_k, attention.to_v
        self.query = q if self.crosses else None
        self.joined: nn.Module = _joined([k, v] if self.crosses else [q, k, v])

    def keep(self, tokens: Tensor) -> None:
        """Compute keys and values once, of tokens [1, m, d'] that never change."""
        self.joined = Constant(self.joined(tokens))

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,
        temb: None = None,
    ) -> Tensor:
        """[b, n, d], or [b, c, h, w] of an autoencoder, and tokens [b, m, d'] → the first shape."""
        x = hidden_states
        if x.dim() == 4:
            x = rearrange(normalise(x, self.norm), "b c h w -> b (h w) c")
        if self.query is None:
            q, k, v = self.joined(x).chunk(3, dim=-1)
        else:
            q = self.query(x)
            k, v = self.joined(encoder_hidden_states).expand(len(x), -1, -1).chunk(2, dim=-1)
        q, k, v = (rearrange(y, "b n (h d) -> b h n d", h=self.heads) for y in (q, k, v))
        x = self.out(rearrange(attend(q, k, v), "b h n d -> b n (h d)"))
        if hidden_states.dim() == 4:
            x = rearrange(x, "b (h w) c -> b c h w", h=hidden_states.shape[2])
        return x + hidden_states if self.residual else x


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v: [b, h, n, d], [b, h, m, d], [b, h, m, d] → [b, h, n, d].

    On a CPU torch computes it in float32 even for bfloat16. There it is computed for some queries
    at a time, by the products of bfloat16 that the processor has; no more than their scores are
    in memory.
    """
    tokens = min(q.shape[2], k.shape[2])
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or tokens < _FEWEST_TOKENS:
        return F.scaled_dot_product_attention(q, k, v)
    out = torch.empty_like(q)
    # Softmax does not see a constant; without the mean, scores are smaller and rounded less.
    k = (k - k.mean(dim=2, keepdim=True)) * q.shape[3] ** -0.5
    for i in range(len(q)):
        for head in range(q.shape[1]):
            kt, values = k[i, head].t(), v[i, head].contiguous()
            for at in range(0, q.shape[2], _QUERIES):
                part = slice(at, at + _QUERIES)
                out[i, head, part] = (q[i, head, part].contiguous() @ kt).softmax(-1) @ values
    return out


def _joined(layers: list[nn.Linear]) -> nn.Linear:
    """One layer with the outputs of several, one behind the other."""
    weight = torch.cat([layer.weight for layer in layers])
    has_bias = layers[0].bias is not None
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=has_bias, device="meta")
    made.weight = nn.Parameter(weight)
    if has_bias:
        made.bias = nn.Parameter(torch.cat([layer.bias for layer in layers]))
    return made


class FixedQueries(nn.Module):
    """A `MultiheadAttention` whose queries never change."""

    query: Tensor

    def __init__(self, attention: nn.MultiheadAttention, query: Tensor) -> None:
        """Take over an attention and the queries [q, d]."""
        super().__init__()
        assert attention.in_proj_bias is not None
        self.heads = attention.num_heads
        self.out = attention.out_proj
        if attention.in_proj_weight is None:
            weights = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
        else:
            weights = attention.in_proj_weight.chunk(3)
        q_bias, *biases = attention.in_proj_bias.chunk(3)
        projected = F.linear(query, weights[0], q_bias).detach()
        self.register_buffer("query", rearrange(projected, "q (h d) -> 1 h q d", h=self.heads))
        self.weight = nn.Parameter(torch.cat(weights[1:]))
        self.bias = nn.Parameter(torch.cat(biases))

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False
    ) -> tuple[Tensor, None]:
        """Queries attend to tokens [b, m, d'] → [b, q, d]; key and value are the same tokens."""
        k, v = F.linear(key, self.weight, self.bias).chunk(2, dim=-1)
        k, v = (rearrange(y, "b m (h d) -> b h m d", h=self.heads) for y in (k, v))
        seen = attend(self.query.expand(len(key), -1, -1, -1), k, v)
        return self.out(rearrange(seen, "b h q d -> b q (h d)")), None
