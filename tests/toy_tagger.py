"""RAM and DAPE as they are published, at toy size: files, and the configuration that fits them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TAGS = ("bride", "man", "red carpet", "sky", "umbrella")
THRESHOLDS = (0.5, 0.45, 0.55, 0.5, 0.5)
ENCODER: dict[str, Any] = {
    "image_size": 96,
    "embed_dim": 16,
    "depths": [2, 2, 2, 2],
    "num_heads": [2, 2, 4, 4],
    "window_size": 3,
    "proj_dim": 32,
}
TAGGER: dict[str, Any] = {
    "encoder": ENCODER,
    "n_tags": len(TAGS),
    "width": 16,
    "mlp_width": 24,
    "heads": 4,
    "layers": 2,
}
# of the text encoder in ../shared/goldens/osediff/base
TEXT: dict[str, Any] = {
    "vocabulary": 1000,
    "width": 64,
    "mlp_width": 64,
    "heads": 4,
    "layers": 2,
    "activation": "quick_gelu",
}


def head(seed: int = 0) -> dict[str, Tensor]:
    """The weights of RAM's tagging head, and one of each part that describes images."""
    generator = torch.Generator().manual_seed(seed)
    width, mlp, image = TAGGER["width"], TAGGER["mlp_width"], ENCODER["proj_dim"]

    def linear(name: str, out: int, into: int) -> dict[str, Tensor]:
        weight = torch.randn(out, into, generator=generator) / into**0.5
        return {f"{name}.weight": weight, f"{name}.bias": torch.randn(out, generator=generator)}

    tensors = {"label_embed": torch.randn(len(TAGS), image, generator=generator)}
    tensors |= linear("wordvec_proj", width, image) | linear("fc", 1, width)
    for i in range(TAGGER["layers"]):
        layer = f"tagging_head.encoder.layer.{i}"
        tensors |= linear(f"{layer}.crossattention.self.query", width, width)
        tensors |= linear(f"{layer}.crossattention.self.key", width, image)
        tensors |= linear(f"{layer}.crossattention.self.value", width, image)
        tensors |= linear(f"{layer}.crossattention.output.dense", width, width)
        tensors |= linear(f"{layer}.intermediate.dense", mlp, width)
        tensors |= linear(f"{layer}.output.dense", width, mlp)
        for norm in ("crossattention.output.LayerNorm", "output.LayerNorm"):
            tensors[f"{layer}.{norm}.weight"] = 1 + torch.rand(width, generator=generator)
            tensors[f"{layer}.{norm}.bias"] = torch.randn(width, generator=generator)
    tensors["tag_encoder.embeddings.LayerNorm.bias"] = torch.zeros(2)
    tensors["text_decoder.cls.predictions.bias"] = torch.zeros(2)
    return tensors


def write_ram(folder: Path, goldens: Path) -> Path:
    """A RAM checkpoint with its lists beside it; its image encoder is that of the goldens."""
    folder.mkdir(parents=True, exist_ok=True)
    published = torch.load(goldens / "ram" / "ram.pth", weights_only=True)["model"]
    encoder = {n: t for n, t in published.items() if n.startswith(("visual_encoder.", "image_pro"))}
    torch.save({"model": {**encoder, **head()}}, folder / "ram.pth")
    (folder / "ram_tag_list.txt").write_text("\n".join(TAGS) + "\n")
    (folder / "ram_tag_list_threshold.txt").write_text("\n".join(map(str, THRESHOLDS)) + "\n")
    return folder / "ram.pth"


def write_ram_plus(folder: Path, goldens: Path, descriptions: int = 51) -> Path:
    """A RAM++ checkpoint: several texts for each tag, and the scale of their weights."""
    file = write_ram(folder, goldens)
    tensors = torch.load(file, weights_only=True)["model"]
    generator = torch.Generator().manual_seed(2)
    texts = torch.randn(len(TAGS) * descriptions, ENCODER["proj_dim"], generator=generator)
    tensors |= {"label_embed": texts, "reweight_scale": torch.tensor(0.7)}
    torch.save({"model": tensors}, file)
    return file


def write_dape(file: Path, rank: int = 3) -> Path:
    """A LoRA of DAPE as loralib leaves it: q and v of every Swin block, q and k of the head."""
    generator = torch.Generator().manual_seed(1)
    tensors: dict[str, Tensor] = {}

    def add(layer: str, out: int, into: int, matrices: int = 1) -> None:
        tensors[f"{layer}.lora_A"] = torch.randn(matrices * rank, into, generator=generator)
        tensors[f"{layer}.lora_B"] = torch.randn(matrices * out, rank, generator=generator)

    for i, depth in enumerate(ENCODER["depths"]):
        d = ENCODER["embed_dim"] * 2**i
        for j in range(depth):
            add(f"visual_encoder.layers.{i}.blocks.{j}.attn.qkv", d, d, matrices=2)
    for i in range(TAGGER["layers"]):
        attention = f"tagging_head.encoder.layer.{i}.crossattention.self"
        add(f"{attention}.query", TAGGER["width"], TAGGER["width"])
        add(f"{attention}.key", TAGGER["width"], ENCODER["proj_dim"])
    add("tag_encoder.encoder.layer.0.attention.self.query", 4, 4)
    torch.save(tensors, file)
    return file
