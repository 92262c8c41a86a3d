"""The LoRA file that a fine-tuning leaves beside its model file."""

import torch
from safetensors import safe_open
from toy_training import settings, train

from hbr.models.checkpoint import read_checkpoint
from hbr.models.importing import import_weights

VSD = {"lora": {"rank": 2}}
ADAPTED = {"kind": "restoration", "lora": {"rank": 2, "alpha": 5.0}, "vsd": VSD}


def test_the_lora_over_what_the_training_began_with_is_the_model_file(tmp_path):
    prior = train(settings(tmp_path / "prior", phases=[{"steps": 5, "crop": 32, "batch": 2}]))
    assert not (tmp_path / "prior" / "lora.safetensors").exists()
    out = tmp_path / "tuned"
    values = settings(out, objective=ADAPTED, init=str(prior), freeze=["prompt"])
    model = read_checkpoint(train(values)).tensors
    file = out / "lora.safetensors"
    with safe_open(file, framework="pt") as opened:
        told = opened.metadata()
        assert not any("regularizer" in name for name in opened.keys())  # noqa: SIM118
    told = {name: told[name] for name in ("rank", "alpha", "base", "steps")}
    assert told == {"rank": "2", "alpha": "5.0", "base": "model.safetensors", "steps": "8"}
    again = import_weights(file, "lora", tmp_path / "again.safetensors", base=prior)
    tensors = read_checkpoint(again).tensors
    assert not torch.equal(
        tensors["unet.conv_in.weight"], read_checkpoint(prior).tensors["unet.conv_in.weight"]
    )
    for name, tensor in model.items():
        torch.testing.assert_close(tensors[name], tensor, atol=1e-6, rtol=1e-6)
