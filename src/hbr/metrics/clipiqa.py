"""CLIP-IQA by any CLIP of transformers: closer to "Good photo." or to "Bad photo."? (Wang 2023).

The papers' CLIPIQA differs (`clipiqa`, by pyiqa): a ResNet-50 without position embedding, at full
size, with five pairs of prompts. This one follows torchmetrics' definition: one pair of prompts,
and images as CLIP itself takes them. Scores are comparable only with the same CLIP.

Shapes: b batch, d features, h w pixels. Images are RGB in [0, 1].
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hbr.errors import one_line
from hbr.metrics.base import Metric, MetricError, MetricInfo, NetworkMetric
from hbr.metrics.files import with_weights
from hbr.weights import find_weights

PROMPTS = ("Good photo.", "Bad photo.")

# CLIP's training values, used where the folder does not specify others
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
# the temperature of CLIP's logits
_SCALE = 100.0


class ClipIQA(nn.Module):
    """The probability that an image matches the first of two prompts.

    Args:
        folder: a CLIP model as transformers writes it, with its tokenizer.

    Raises:
        MetricError: the folder does not hold such a model.
    """

    anchors: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import CLIPModel, CLIPTokenizer

        try:
            tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
            model, loaded = CLIPModel.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
            )
        except Exception as error:  # a damaged folder can raise anything
            reason = one_line(error, 200)
            raise MetricError(
                f"{folder} does not hold a transformers CLIP model: {reason}"
            ) from None
        if missing := sorted(loaded["missing_keys"]):
            raise MetricError(f"{folder} holds an incomplete CLIP model: it lacks {missing[0]}")
        self.clip = model.requires_grad_(False).eval()
        self.side = int(model.config.vision_config.image_size)
        mean, std = _normalisation(folder)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        words = tokenizer(list(PROMPTS), return_tensors="pt", padding=True)
        with torch.no_grad():
            text = self.clip.text_model(**words).pooler_output
            self.register_buffer("anchors", F.normalize(self.clip.text_projection(text)))

    def forward(self, image: Tensor) -> Tensor:
        """[b, 3, h, w] → [b] in [0, 1], higher is better."""
        seen = self.clip.vision_model(self.prepare(image)).pooler_output
        features = F.normalize(self.clip.visual_projection(seen))  # [b, d]
        return (_SCALE * features @ self.anchors.T).softmax(dim=1)[:, 0]

    def prepare(self, image: Tensor) -> Tensor:
        """Resize the shorter side to CLIP's size (bicubic, antialiased), crop, normalise."""
        h, w = image.shape[2:]
        scale = self.side / min(h, w)
        size = (max(self.side, int(h * scale)), max(self.side, int(w * scale)))
        small = F.interpolate(image, size, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = ((length - self.side) // 2 for length in size)
        centre = small[..., top : top + self.side, left : left + self.side]
        return (centre - self.mean) / self.std


def load_clipiqa(info: MetricInfo, device: str, weights: Path | None) -> Metric:
    """The row `clipiqa-vit`, ready to run; see `hbr.metrics.load_metric`.

    `weights` is the folder of a CLIP model, or its parent folder.
    """
    if weights is not None and (weights / "config.json").is_file():
        folder = weights
    else:
        folder = find_weights(info.weights[0], info.id, weights)
    if not folder.is_dir():
        raise MetricError(f"{folder}: {info.id} takes the folder of a CLIP model")
    model = ClipIQA(folder)
    files = sorted(folder.glob("*.safetensors")) or [folder / "config.json"]
    return NetworkMetric(with_weights(info, files[0]), model, device)


def _normalisation(folder: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [1, 3, 1, 1] that the folder's pictures are normalised with."""
    path = folder / "preprocessor_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        mean, std = config.get("image_mean", _MEAN), config.get("image_std", _STD)
        return torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)
    except (ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise MetricError(f"{path} is not a CLIP image processor configuration: {error}") from None
