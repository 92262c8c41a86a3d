"""What is computed otherwise on some devices: the same function, faster.

Shapes: b batch, h heads, n m tokens, d width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# From this many tokens on, attention by blocks of queries is faster than torch's on CPUs; more
# queries in a block are not.
_FEWEST_TOKENS, _QUERIES = 256, 512


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
