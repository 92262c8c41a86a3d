"""Checkpoints as other people's code leaves them: taken, or refused with what is in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hbr.models import OneStepRestorer, WeightsError, load_model, read_checkpoint
from hbr.models.importing import ArgumentError, import_weights, recognise
from hbr.models.importing.base import load_base
from hbr.models.importing.ram import read_image_encoder
from toy_models import load_image_encoder

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
State = dict[str, Tensor]


def lora_of(base: Path, path: Path) -> Path:
    """A LoRA of one layer, with the names that diffusers gives."""
    width = load_base(base, None, print).tensors[f"unet.{LAYER}.weight"].shape[1]
    named = {"lora_A": torch.ones(16, width), "lora_B": torch.ones(width, 16)}
    path.parent.mkdir(exist_ok=True)
    save_file({f"unet.{LAYER}.{name}.weight": tensor for name, tensor in named.items()}, path)
    return path


# --- Methods over Stable Diffusion that are not hbr's one step


def pisa_sr() -> dict[str, Any]:
    """The keys that the published code writes, train_pisasr.py's save_model."""
    parts = [f"unet_lora_{p}_modules_{k}" for k in ("pix", "sem") for p in PARTS]
    ranks = {"lora_rank_unet_pix": 4, "lora_rank_unet_sem": 4}
    weights = {f"{LAYER}.lora_A.default_encoder_pix.weight": torch.ones(4, 16)}
    return {**{name: [LAYER] for name in parts}, **ranks, "state_dict_unet": weights}


def s3diff() -> dict[str, Any]:
    """The keys that the published code writes, s3diff.py's save_model."""
    one = {"0.weight": torch.ones(2, 2)}
    mlps = [f"state_dict_{n}_{m}_mlp" for n in ("vae", "unet") for m in ("de", "block", "fuse")]
    values: dict[str, Any] = dict.fromkeys((*mlps, "state_dict_unet", "state_dict_vae"), one)
    values |= {"unet_lora_target_modules": ["to_k"], "vae_lora_target_modules": "^encoder"}
    embeddings = {"state_dict_vae_block": one, "state_dict_unet_block": one}
    ranks = {"rank_unet": 32, "rank_vae": 16}
    return {**values, **ranks, "w": torch.ones(64), "state_embeddings": embeddings}


def haodiff_encoder() -> dict[str, Any]:
    """The keys that the published code writes beside its LoRA."""
    weights = {"main_performer.proj1.weight": torch.ones(2, 2)}
    return {"model_state_dict": weights, "swinir_kwargs": {"embed_dim": 2}, "performer_kwargs": {}}


PARTS = ("encoder", "decoder", "others")


@pytest.mark.parametrize("kind", ["auto", "osediff"])
@pytest.mark.parametrize(
    ("made", "told"),
    [
        (pisa_sr, r"is a PiSA-SR checkpoint: .* residual of the latent at t = 1.* as a program"),
        (s3diff, r"is an S3Diff checkpoint: .* modulated, image by image.* as a program"),
        (haodiff_encoder, r"is the image encoder of HAODiff.*hbr methods show haodiff"),
    ],
)
def test_checkpoints_of_other_methods_are_named_and_refused(
    made: Callable[[], dict[str, Any]], told: str, kind: Any, goldens: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "x.pkl", tmp_path / "o.safetensors"
    torch.save(made(), file)
    base = goldens / "osediff" / "base"
    with pytest.raises(WeightsError, match=told):
        import_weights(file, kind, out, base=base)
    assert not out.exists()


def test_haodiffs_lora_is_never_run_at_the_wrong_timestep(goldens: Path, tmp_path: Path) -> None:
    """Its names are those of any LoRA; what lies beside it tells."""
    base, out = goldens / "osediff" / "base", tmp_path / "o.safetensors"
    weights = tmp_path / "weights"
    file = lora_of(base, weights / "pytorch_lora_weights.safetensors")
    torch.save(haodiff_encoder(), weights / "img_encoder_weights.pth")
    for kind in ("auto", "lora"):
        with pytest.raises(WeightsError, match=r"t = 199 with classifier-free guidance of 3.5"):
            import_weights(file, kind, out, base=base)  # type: ignore[arg-type]
    assert "HAODiff" in recognise(weights).report
    assert not out.exists()


def test_a_lora_over_a_plain_folder_says_at_which_timestep_it_starts(
    goldens: Path, tmp_path: Path
) -> None:
    base, out = goldens / "osediff" / "base", tmp_path / "o.safetensors"
    file = lora_of(base, tmp_path / "lora.safetensors")
    said: list[str] = []
    import_weights(file, "auto", out, base=base, report=said.append)
    assert f"warning: {file} does not state at which timestep its one step starts; t = 999 is " in (
        " ".join(said)
    )
    assert read_checkpoint(out).config.timestep == 999  # type: ignore[union-attr]

    said.clear()
    import_weights(file, "auto", out, base=base, timestep=199, report=said.append)
    assert not [line for line in said if "timestep" in line]
    assert load_model(out).config.timestep == 199  # type: ignore[union-attr]
    # a base that was trained has its own
    said.clear()
    import_weights(file, "lora", tmp_path / "two.safetensors", base=out, report=said.append)
    assert not [line for line in said if "timestep" in line]
    assert load_model(tmp_path / "two.safetensors").config.timestep == 199  # type: ignore[union-attr]
    with pytest.raises(ArgumentError, match=r"--timestep: timestep is 1000; it must be in \[0, 1"):
        import_weights(file, "auto", out, base=base, timestep=1000)


# --- Nestings


def optimizer(state: State) -> dict[str, Any]:
    moments = {number: {"exp_avg": tensor.clone()} for number, tensor in enumerate(state.values())}
    return {"state": moments, "param_groups": [{"lr": 1e-4}]}


NESTINGS: dict[str, Callable[[State], Any]] = {
    "flat": lambda state: state,
    "flat, with an epoch": lambda state: {**state, "epoch": 3},
    "model_state_dict": lambda state: {
        "epoch": 3,
        "model_state_dict": state,
        "optimizer_state_dict": optimizer(state),
    },
    "a name of its own": lambda state: {"net_g": state, "step": torch.tensor(3)},
    "two deep": lambda state: {"state": {"generator": state}, "args": {"lr": 1e-4}},
    "two names": lambda state: {"state_dict": {"model": state}},
    "of several GPUs": lambda state: {"model": {f"module.{n}": t for n, t in state.items()}},
    "compiled": lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
    "averaged": lambda state: {
        "params": {name: torch.zeros_like(tensor) for name, tensor in state.items()},
        "params_ema": state,
    },
}


@pytest.mark.parametrize("nesting", NESTINGS)
def test_weights_are_found_however_they_are_nested(
    nesting: str, toy: OneStepRestorer, toy_file: Path, tmp_path: Path
) -> None:
    state = {name: tensor + 1 for name, tensor in toy.unet.state_dict().items()}
    torch.save(NESTINGS[nesting](state), tmp_path / "unet.ckpt")
    assert recognise(tmp_path / "unet.ckpt").kind == "unet"
    out = import_weights(tmp_path / "unet.ckpt", "auto", tmp_path / "o.safetensors", base=toy_file)
    tensors = read_checkpoint(out).tensors
    for name, tensor in state.items():
        assert torch.equal(tensors[f"unet.{name}"], tensor)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"generator": {"a": torch.ones(1)}, "discriminator": {"b": torch.ones(1)}, "step": 7},
            r"it contains generator \(1 tensor\), discriminator \(1 tensor\), step \(7\)",
        ),
        ({"epoch": 3, "args": {"lr": 1e-4}}, r"it contains epoch \(3\), args \(dict of 1\)"),
        ({}, "it contains an empty dict"),
        ({"x": [torch.ones(1)]}, r"it contains x \(list of 1\)"),
        (torch.ones(2), "it contains a Tensor, not named weights"),
    ],
)
def test_a_file_without_weights_says_what_it_contains(
    values: Any, told: str, toy_file: Path, tmp_path: Path
) -> None:
    torch.save(values, tmp_path / "x.pth")
    for kind in ("auto", "unet", "ram"):
        base = None if kind == "ram" else toy_file
        with pytest.raises(WeightsError, match=told):
            import_weights(tmp_path / "x.pth", kind, tmp_path / "o.safetensors", base=base)  # type: ignore[arg-type]
    save_file({}, tmp_path / "empty.safetensors")
    assert "it contains no weights" in recognise(tmp_path / "empty.safetensors").report


# --- RAM


def without(state: State, *ends: str) -> State:
    return {name: tensor for name, tensor in state.items() if not name.endswith(ends)}


@pytest.mark.parametrize(
    ("changed", "guessed"),
    [
        (lambda state: {"model": without(state, "attn_mask")}, True),
        (lambda state: {"model": without(state, "attn_mask", "relative_position_index")}, True),
        (lambda state: {"state_dict": state}, False),
        (lambda state: {"model_state_dict": {f"module.{n}": t for n, t in state.items()}}, False),
        (lambda state: state, False),
    ],
)
def test_ram_comes_in_however_it_was_saved(
    changed: Callable[[State], Any], guessed: bool, goldens: Path, tmp_path: Path
) -> None:
    state = torch.load(goldens / "ram" / "ram.pth", weights_only=True)["model"]
    file, said = tmp_path / "ram.pth", list[str]()
    torch.save(changed(state), file)
    out = import_weights(file, "auto", tmp_path / "o.safetensors", report=said.append)
    whole = import_weights(goldens / "ram" / "ram.pth", "ram", tmp_path / "whole.safetensors")
    ours, expected = load_image_encoder(out), load_image_encoder(whole)
    assert read_image_encoder(out)[0] == read_image_encoder(whole)[0]
    image = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(image), expected(image))
    warning = f"warning: {file} has no attn_mask, which gives the image size; 96 is assumed"
    assert (warning in said) == guessed
