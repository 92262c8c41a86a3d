"""RAM's tagger: which of its tags apply to an image.

Source: Recognize Anything (Zhang et al. 2023), with the head of Query2Label (Liu et al. 2021):
every tag is a query that attends to the image. Built from the Swin and BERT of transformers.
RAM++ (Huang et al. 2023) has several texts for each tag, and weighs them by their similarity to
the image.

Shapes: b batch, k tags, m texts of a tag, n image tokens, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.func import functional_call
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertIntermediate, BertOutput, BertSelfOutput

from hbr.devices import exact_inference
from hbr.models.config import TaggerConfig
from hbr.models.hfie import ImageEncoder
from hbr.models.text_buffer import TextBuffer
from hbr.weights import WeightsError


class Tagger(nn.Module):
    """Tags images from a list that is stored with the weights; frozen."""

    def __init__(self, config: TaggerConfig) -> None:
        super().__init__()
        self.encoder = ImageEncoder(config.encoder)
        label_width = config.encoder.proj_dim
        self.descriptions = config.descriptions
        texts = config.n_tags * config.descriptions
        self.label_embed = nn.Parameter(torch.randn(texts, label_width) * 0.02)
        if config.descriptions > 1:
            self.reweight_scale = nn.Parameter(torch.zeros(()))
        self.wordvec_proj = nn.Linear(label_width, config.width)
        self.layers = nn.ModuleList(TaggingLayer(config) for _ in range(config.layers))
        self.fc = nn.Linear(config.width, 1)
        self.list = TextBuffer(_parse_list)
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Probability of each tag: [b, 3, h, w] in [0, 1] → [b, k], float32 in (0, 1)."""
        tokens = self.encoder(image)  # [b, n, proj_dim]
        if self.descriptions > 1:
            x = F.relu(self.wordvec_proj(self._weighed(tokens[:, 0])))  # [b, k, d]
        else:
            labels = F.relu(self.wordvec_proj(self.label_embed))  # [k, d]
            x = repeat(labels, "k d -> b k d", b=image.shape[0])
        for layer in self.layers:
            x = layer(x, tokens)
        return torch.sigmoid(self.fc(x).squeeze(-1).float())

    def _weighed(self, whole: Tensor) -> Tensor:
        """The texts of each tag, weighed by the image's first token [b, d] → [b, k, d]."""
        texts = rearrange(self.label_embed, "(k m) d -> k m d", m=self.descriptions)
        similar = torch.einsum("b d, k m d -> b k m", F.normalize(whole, dim=-1), texts)
        weights = (self.reweight_scale.exp() * similar).softmax(dim=-1)
        return torch.einsum("b k m, k m d -> b k d", weights, texts)

    def probabilities(self, image: Tensor) -> Tensor:
        """`forward` in float32 and one image at a time, whatever precision the weights are kept in.

        In 16 bits, which kernel a processor picks, and how many images share a batch, moves a
        probability by more than 0.001: near a threshold, tags would come and go with them.
        """
        tensors = [*self.named_parameters(), *self.named_buffers()]
        weights = {name: t.float() for name, t in tensors if t.is_floating_point()}
        with torch.autocast(image.device.type, enabled=False):
            rows = [functional_call(self, weights, one) for one in image.float().split(1)]
        return torch.cat(rows)

    @exact_inference()
    def tags(self, image: Tensor) -> list[tuple[str, ...]]:
        """The tags of each image [b, 3, h, w] in [0, 1] above their thresholds, in list order.

        Raises:
            WeightsError: the list is missing or damaged, or has the wrong length.
        """
        names, thresholds = self.list.value
        known = len(self.label_embed) // self.descriptions
        if len(names) != known:
            raise WeightsError(f"the model's list has {len(names)} tags; its tagger knows {known}")
        # thresholds are float32 too: bfloat16 cannot represent 0.65 exactly
        shown = self.probabilities(image).cpu() > torch.tensor(thresholds)
        return [tuple(names[i] for i in row.nonzero().flatten().tolist()) for row in shown]


class TaggingLayer(nn.Module):
    """A BERT layer without self-attention: the tags [b, k, d] attend to the image tokens."""

    def __init__(self, config: TaggerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.encoder.proj_dim, config.width)
        self.value = nn.Linear(config.encoder.proj_dim, config.width)
        bert = BertConfig(
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            hidden_dropout_prob=0.0,  # never trained
        )
        self.attended = BertSelfOutput(bert)
        self.intermediate = BertIntermediate(bert)
        self.output = BertOutput(bert)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """[b, k, d] and tokens [b, n, proj_dim] → [b, k, d]."""
        q, k, v = (
            rearrange(y, "b l (h d) -> b h l d", h=self.heads)
            for y in (self.query(x), self.key(tokens), self.value(tokens))
        )
        seen = rearrange(F.scaled_dot_product_attention(q, k, v), "b h l d -> b l (h d)")
        x = self.attended(seen, x)
        return cast(Tensor, self.output(self.intermediate(x), x))


def write_list(names: Sequence[str], thresholds: Sequence[float]) -> str:
    """Names and thresholds in the format of `Tagger.list`: one line per tag."""
    pairs = zip(names, thresholds, strict=True)
    return "\n".join(f"{threshold!r}\t{name}" for name, threshold in pairs)


def _parse_list(text: str) -> tuple[list[str], list[float]]:
    rows = [line.partition("\t") for line in text.split("\n")]
    try:
        return [name for _, _, name in rows], [float(threshold) for threshold, _, _ in rows]
    except ValueError:
        raise WeightsError("the model's list of tags is missing or damaged") from None
