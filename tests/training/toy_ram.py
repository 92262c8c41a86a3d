"""A RAM checkpoint with its tagger and a DAPE, at toy size, in their published layouts."""

from pathlib import Path

import torch

from toy_weights import spread

TAGS = ("person", "coat", "street", "tie", "hat")
WIDTH, MLP_WIDTH, HEADS, LAYERS = 16, 32, 2, 2


def write(folder: Path, ram: Path) -> Path:
    """The goldens' `ram` with a head of random weights; tags, thresholds and a DAPE beside it."""
    folder.mkdir()
    model = torch.load(ram, weights_only=True)["model"]
    kept = {n: t for n, t in model.items() if not n.startswith("tagging_head.")}
    proj = len(kept["image_proj.bias"])
    shapes: dict[str, tuple[int, ...]] = {
        "label_embed": (len(TAGS), proj),
        "wordvec_proj.weight": (WIDTH, proj),
        "wordvec_proj.bias": (WIDTH,),
        "fc.weight": (1, WIDTH),
        "fc.bias": (1,),
    }
    for i in range(LAYERS):
        for name, out, width in (
            ("crossattention.self.query", WIDTH, WIDTH),
            ("crossattention.self.key", WIDTH, proj),
            ("crossattention.self.value", WIDTH, proj),
            ("crossattention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", MLP_WIDTH, WIDTH),
            ("output.dense", WIDTH, MLP_WIDTH),
        ):
            shapes[f"tagging_head.encoder.layer.{i}.{name}.weight"] = (out, width)
            shapes[f"tagging_head.encoder.layer.{i}.{name}.bias"] = (out,)
        for name in ("crossattention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"tagging_head.encoder.layer.{i}.{name}.weight"] = (WIDTH,)
            shapes[f"tagging_head.encoder.layer.{i}.{name}.bias"] = (WIDTH,)
    head = {name: spread(shape, i) for i, (name, shape) in enumerate(shapes.items())}
    torch.save({"model": kept | head}, folder / "ram.pth")
    (folder / "ram_tag_list.txt").write_text("\n".join(TAGS) + "\n")
    (folder / "ram_tag_list_threshold.txt").write_text("0.4\n" * len(TAGS))
    width = kept["visual_encoder.layers.0.blocks.0.attn.qkv.weight"].shape[1]
    query = "tagging_head.encoder.layer.0.crossattention.self.query"
    block = "visual_encoder.layers.0.blocks.0.attn.qkv"
    lora = {
        f"{block}.lora_A": (8, width),  # rank 4 on q and v
        f"{block}.lora_B": (2 * width, 4),
        f"{query}.lora_A": (4, WIDTH),
        f"{query}.lora_B": (WIDTH, 4),
    }
    dape = {name: 0.1 * spread(shape, i) for i, (name, shape) in enumerate(lora.items())}
    torch.save(dape, folder / "DAPE.pth")
    return folder
