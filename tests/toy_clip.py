"""A small CLIP as transformers draws and writes it; its tokenizer knows single letters."""

import json
from pathlib import Path

import torch


def write_clip(path: Path) -> Path:
    """Write the model and its tokenizer into a folder, which is returned."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz."
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    known = {w: i for i, w in enumerate(words)}
    (path / "vocab.json").write_text(json.dumps(known))
    (path / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(path / "vocab.json"), str(path / "merges.txt")).save_pretrained(path)
    torch.manual_seed(0)
    tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    text = {"vocab_size": len(known), "eos_token_id": known["<|endoftext|>"]}
    config = CLIPConfig(
        text_config={**tiny, "num_attention_heads": 2, **text},
        vision_config={**tiny, "num_attention_heads": 2, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(path)
    return path
