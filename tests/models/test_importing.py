import dataclasses
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hbr.models import (
    OneStepRestorer,
    WeightsError,
    build,
    load_model,
    read_checkpoint,
    save_checkpoint,
)
from hbr.models.config import HFIEConfig, LoRAConfig, TextPromptConfig
from hbr.models.importing import (
    ArgumentError,
    import_weights,
    load_diffusers_base,
)
from hbr.models.lora import autoencoder_targets, inject, lora_state, merge, unet_targets
from hbr.models.text import embed_text
from toy_models import load_image_encoder


@pytest.fixture
def base(goldens: Path, tmp_path: Path) -> Path:
    """A diffusers folder that may be changed."""
    folder = tmp_path / "base"
    shutil.copytree(goldens / "osediff" / "base", folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def edit(path: Path, **values: Any) -> None:
    found = json.loads(path.read_text())
    found.update(values)
    path.write_text(json.dumps({k: v for k, v in found.items() if v != "REMOVED"}))


# --- a base folder


def test_a_base_folder_becomes_a_model_file(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "base.safetensors"
    lines: list[str] = []
    import_weights(base, "diffusers", out, prompt="a person", report=lines.append)
    model = load_model(out)
    assert model.config.unet.block_out_channels == (16, 16, 32, 32)
    assert model.config.native_size == 64
    assert model.config.prompt == TextPromptConfig(n_queries=77, width=64, text="a person")
    assert torch.equal(model.prompt.embedding, embed_text(base, "a person"))
    assert "untrained" in read_checkpoint(out).card["trained"]
    assert any("MB" in line for line in lines)
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 3, 64, 64)


def test_the_prompt_is_what_the_text_encoder_says(base: Path) -> None:
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(base / "text_encoder").eval()
    ids = tokenizer("old photo", padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = encoder(ids).last_hidden_state[0]
    assert torch.equal(embed_text(base, "old photo"), expected)
    assert not torch.equal(embed_text(base, ""), expected)
    assert embed_text(base, "photo " * 500).shape == (77, 64)


def test_the_v_predicting_model_is_refused(base: Path, tmp_path: Path) -> None:
    edit(base / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    for kind, source in (("diffusers", base), ("osediff", base.parent / "x.pkl")):
        source.touch() if kind == "osediff" else None
        more = {"base": base} if kind == "osediff" else {}
        with pytest.raises(WeightsError, match=r"v_prediction.*Stable Diffusion 2.1 \(768\)") as e:
            import_weights(source, kind, tmp_path / "o.safetensors", **more)  # type: ignore[arg-type]
        assert "stable-diffusion-2-1-base" in str(e.value)
    assert not (tmp_path / "o.safetensors").exists()


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        ("scheduler/scheduler_config.json", "beta_end", 0.02),
        ("scheduler/scheduler_config.json", "beta_schedule", "linear"),
        ("scheduler/scheduler_config.json", "num_train_timesteps", 500),
        ("vae/config.json", "scaling_factor", 0.13025),
        ("vae/config.json", "act_fn", "gelu"),
        ("vae/config.json", "latents_mean", [0.0]),
        ("unet/config.json", "act_fn", "gelu"),
        ("unet/config.json", "in_channels", 9),
        ("unet/config.json", "time_embedding_type", "fourier"),
        ("unet/config.json", "transformer_layers_per_block", 2),
        ("unet/config.json", "layers_per_block", [1, 1]),
        ("unet/config.json", "cross_attention_dim", [64, 64]),
        ("unet/config.json", "some_new_setting", 3),
        ("unet/config.json", "_class_name", "UNet3DConditionModel"),
    ],
)
def test_a_setting_that_changes_the_numbers_is_named(
    base: Path, file: str, name: str, value: Any
) -> None:
    edit(base / file, **{name: value})
    with pytest.raises(WeightsError, match=name) as error:
        load_diffusers_base(base)
    assert str(base / file) in str(error.value)


def test_old_folders_load_the_same(base: Path) -> None:
    expected = load_diffusers_base(base)
    edit(base / "vae" / "config.json", scaling_factor="REMOVED", force_upcast="REMOVED")
    edit(base / "unet" / "config.json", upcast_attention="REMOVED", sample_size="REMOVED")
    edit(base / "scheduler" / "scheduler_config.json", prediction_type="REMOVED")
    # diffusers before 0.18 named the autoencoder's attention so, and wrote .bin files
    file = base / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in load_file(file).items():
        for new, before in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{before}.")
        tensors[name] = tensor
    file.unlink()
    torch.save(tensors, file.with_suffix(".bin"))
    got = load_diffusers_base(base)
    assert got.autoencoder == expected.autoencoder
    assert got.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(got.tensors[k], t) for k, t in expected.tensors.items())


def test_incomplete_folders_are_errors(base: Path) -> None:
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if k != "conv_in.bias"}, weights)
    with pytest.raises(WeightsError, match=r"conv_in.bias is missing"):
        load_diffusers_base(base)
    weights.unlink()
    with pytest.raises(WeightsError, match="has no weights"):
        load_diffusers_base(base)
    (base / "unet" / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="is not JSON"):
        load_diffusers_base(base)
    shutil.rmtree(base / "scheduler")
    with pytest.raises(WeightsError, match=r"scheduler_config.json: there is no such file"):
        load_diffusers_base(base)


def test_a_damaged_text_encoder_is_an_error(base: Path, tmp_path: Path) -> None:
    weights = base / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    name = next(k for k in sorted(tensors) if "layers.1" in k)
    save_file({k: v for k, v in tensors.items() if k != name}, weights, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="text_encoder: missing weight"):
        import_weights(base, "diffusers", tmp_path / "o.safetensors")
    shutil.rmtree(base / "tokenizer")
    with pytest.raises(WeightsError, match="has no tokenizer"):
        import_weights(base, "diffusers", tmp_path / "o.safetensors")


# --- OSEDiff


def published(model: OneStepRestorer, rank: int, seed: int) -> dict[str, Any]:
    """A checkpoint in OSEDiff's format with random LoRA, which `model` then carries."""
    torch.manual_seed(seed)
    config = LoRAConfig(rank=rank, alpha=8.0)
    unet, vae = unet_targets(model.unet), autoencoder_targets(model.autoencoder)
    model.unet.conv_in.weight += 0.01  # the published file brings its own conv_in
    inject(model.unet, unet, config)
    inject(model.autoencoder, vae, config)
    for module in (model.unet, model.autoencoder):
        for tensor in lora_state(module).values():
            tensor.copy_(torch.randn_like(tensor) * 0.05)  # the state shares the weights' memory
    state = model.unet.state_dict()
    return {
        "vae_lora_encoder_modules": [*vae["default_encoder"], "quant_conv"],
        **{f"unet_lora_{k.removeprefix('default_')}_modules": list(v) for k, v in unet.items()},
        "rank_unet": rank,
        "rank_vae": rank,
        "state_dict_unet": {k: v for k, v in state.items() if "lora" in k or "conv_in" in k},
        "state_dict_vae": dict(lora_state(model.autoencoder)),
    }


@torch.no_grad()
@pytest.mark.parametrize(("rank", "seed"), [(4, 1), (2, 2)])
def test_osediff_of_another_size(
    toy: OneStepRestorer, tmp_path: Path, rank: int, seed: int
) -> None:
    prompt = TextPromptConfig(n_queries=5, width=32)
    config = dataclasses.replace(toy.config, prompt=prompt)
    torch.manual_seed(seed)
    model = OneStepRestorer(config).eval()
    model.prompt.embedding.normal_()
    base = save_checkpoint(tmp_path / "base.safetensors", config, model.state_dict())
    torch.save(published(model, rank, seed), tmp_path / "toy.pkl")
    x = torch.rand(1, 3, 64, 64)
    z_l, epsilon = model.encode(x), model.predict(torch.ones(1, 4, 32, 32), torch.ones(1, 5, 32))

    out = tmp_path / "toy.safetensors"
    import_weights(tmp_path / "toy.pkl", "osediff", out, base=base)
    got = build(read_checkpoint(out))
    torch.testing.assert_close(got.encode(x), z_l, atol=1e-5, rtol=1e-5)
    predicted = got.predict(torch.ones(1, 4, 32, 32), torch.ones(1, 5, 32))
    torch.testing.assert_close(predicted, epsilon, atol=1e-5, rtol=1e-5)
    assert torch.equal(got.prompt.embedding, model.prompt.embedding)


def test_osediff_with_a_wrong_key_names_it(goldens: Path, tmp_path: Path) -> None:
    folder = goldens / "osediff"
    whole = torch.load(folder / "osediff.pkl", weights_only=True)
    unet, vae = whole["state_dict_unet"], whole["state_dict_vae"]
    a = "mid_block.resnets.0.conv1.lora_A.default_others.weight"
    q = "quant_conv.lora_B.default_encoder.weight"
    base_bias = "conv_in.base_layer.bias"
    modules = "unet_lora_others_modules"
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {**whole, "state_dict_unet": {k: v for k, v in unet.items() if k != a}},
            f"{a} is missing",
        ),
        ({**whole, "state_dict_unet": {**unet, "more": torch.ones(1)}}, "no weight more"),
        ({**whole, "state_dict_unet": {**unet, a: unet[a][:2]}}, rf"{a} is \(2,"),
        ({**whole, "state_dict_unet": {**unet, base_bias: torch.ones(3)}}, rf"{base_bias} is \(3,"),
        ({**whole, "state_dict_vae": {k: v for k, v in vae.items() if k != q}}, f"{q} is missing"),
        ({**whole, modules: [*whole[modules], "mid_block.none"]}, "mid_block.none"),
        ({**whole, modules: whole[modules][1:]}, "mid_block.attentions.0.proj_in"),
        ({**whole, "rank_unet": "four"}, "the rank is 'four'"),
        ({**whole, "rank_vae": 8}, "lora_A"),
        ({**whole, "surprise": 1}, "'surprise' is not part of an OSEDiff"),
        ({k: v for k, v in whole.items() if k != "rank_vae"}, "its rank_vae is missing"),
        ({**whole, "state_dict_vae": {"a": "text"}}, "'a' is str, not a tensor"),
    ]
    for values, message in cases:
        torch.save(values, tmp_path / "wrong.pkl")
        with pytest.raises(WeightsError, match=message):
            import_weights(
                tmp_path / "wrong.pkl", "osediff", tmp_path / "o.safetensors", base=folder / "base"
            )
    assert not (tmp_path / "o.safetensors").exists()


# --- files that are not what they say


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("kind", ["osediff", "ram", "lora"])
@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_that_runs_code_is_refused(
    goldens: Path, tmp_path: Path, kind: Any, writer: str
) -> None:
    trap, file = tmp_path / "trap", tmp_path / "evil.pkl"
    if writer == "pickle":
        file.write_bytes(pickle.dumps({"model": Malicious(trap)}))
    else:
        torch.save({"model": Malicious(trap)}, file)
    base = None if kind == "ram" else goldens / "osediff" / "base"
    with pytest.raises(WeightsError, match="was refused") as error:
        import_weights(file, kind, tmp_path / "o.safetensors", base=base)
    assert "\n" not in str(error.value)
    if writer == "torch":
        assert "system" in str(error.value)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Malicious(trap)))  # it would have done it
    assert trap.exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04 no zip"])
def test_a_damaged_pickle_is_an_error(goldens: Path, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.pkl"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"x.pkl"):
        import_weights(file, "ram", tmp_path / "o.safetensors")


def test_arguments_that_do_not_go_together(goldens: Path, tmp_path: Path) -> None:
    source, out = goldens / "osediff" / "osediff.pkl", tmp_path / "o.safetensors"
    base = goldens / "osediff" / "base"
    for more, message in (
        ({"kind": "osediff"}, "needs --base"),
        ({"kind": "lora"}, "needs --base"),
        ({"kind": "diffusers", "base": base}, "takes no --base"),
        ({"kind": "ram", "prompt": "x"}, "--prompt"),
        ({"kind": "none"}, "one of osediff, ram, tagger, lora, diffusers, unet, vae"),
        ({"kind": "ram", "out": tmp_path / "o.pth"}, "must end in .safetensors"),
    ):
        arguments: Any = {"out": out, **more}
        with pytest.raises(ArgumentError, match=message):
            import_weights(source, **arguments)


# --- RAM


def test_ram_alone_is_an_image_encoder_and_no_model(goldens: Path, tmp_path: Path) -> None:
    out = tmp_path / "ram.safetensors"
    lines: list[str] = []
    import_weights(goldens / "ram" / "ram.pth", "ram", out, report=lines.append)
    assert any("tagging_head" in line for line in lines)
    published = json.loads((goldens / "ram" / "config.json").read_text())
    encoder = load_image_encoder(out)
    assert encoder.image_size == published["img_size"]
    assert encoder.swin.config.depths == published["depths"]
    assert encoder.image_proj.out_features == published["proj"]
    with pytest.raises(WeightsError, match="contains only an image encoder, not a restorer"):
        load_model(out)


def test_ram_goes_into_an_hfie(goldens: Path, tmp_path: Path) -> None:
    ram, encoder_file = goldens / "ram" / "ram.pth", tmp_path / "ram.safetensors"
    import_weights(ram, "ram", encoder_file)
    encoder = load_image_encoder(encoder_file)

    fresh = tmp_path / "fresh.safetensors"
    import_weights(ram, "ram", fresh, base=goldens / "osediff" / "base")
    model = load_model(fresh)
    assert isinstance(model.config.prompt, HFIEConfig)
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(model.prompt.encoder(image), encoder(image), atol=1e-5, rtol=1e-5)
    assert "untrained" in read_checkpoint(fresh).card["trained"]

    # and into a model of hbr: everything but the encoder is kept
    state = {k: torch.zeros_like(v) for k, v in model.state_dict().items()}
    zeros = save_checkpoint(tmp_path / "zeros.safetensors", model.config, state)
    import_weights(ram, "ram", tmp_path / "o.safetensors", base=zeros)
    got = load_model(tmp_path / "o.safetensors").state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(got[name], tensor) or not name.startswith("prompt.encoder.")
        assert name.startswith("prompt.encoder.") or not got[name].any()


def test_ram_does_not_go_elsewhere(goldens: Path, toy_file: Path, tmp_path: Path) -> None:
    ram, out = goldens / "ram" / "ram.pth", tmp_path / "o.safetensors"
    with pytest.raises(WeightsError, match="ImageEncoderConfig"):
        import_weights(ram, "ram", out, base=toy_file)
    import_weights(goldens / "osediff" / "base", "diffusers", tmp_path / "fixed.safetensors")
    with pytest.raises(WeightsError, match="has another prompt"):
        import_weights(ram, "ram", out, base=tmp_path / "fixed.safetensors")


def test_ram_with_a_wrong_key_names_it(goldens: Path, tmp_path: Path) -> None:
    whole = torch.load(goldens / "ram" / "ram.pth", weights_only=True)["model"]
    block = "visual_encoder.layers.1.blocks.1"
    cases: list[tuple[Any, str]] = [
        (
            {k: v for k, v in whole.items() if k != f"{block}.attn.qkv.bias"},
            "q_proj.bias is missing",
        ),
        ({**whole, f"{block}.extra.weight": torch.ones(1)}, "extra.weight is not a weight of RAM"),
        ({**whole, "image_proj.bias": torch.ones(3)}, r"image_proj.bias is \(3,\)"),
        ({k: v for k, v in whole.items() if "image_proj" not in k}, "image_proj.weight is missing"),
        ({"none": torch.ones(1)}, "is missing"),
    ]
    for values, message in cases:
        torch.save({"model": values}, tmp_path / "wrong.pth")
        with pytest.raises(WeightsError, match=message):
            import_weights(tmp_path / "wrong.pth", "ram", tmp_path / "o.safetensors")
    torch.save({"epoch": 3, "model": {}}, tmp_path / "wrong.pth")
    with pytest.raises(WeightsError, match=r"it contains epoch \(3\), model \(dict of 0\)"):
        import_weights(tmp_path / "wrong.pth", "ram", tmp_path / "o.safetensors")


# --- LoRA files

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def lora_file(path: Path, tensors: dict[str, Tensor], metadata: Any = None) -> Path:
    save_file(tensors, path, metadata=metadata)
    return path


@pytest.mark.parametrize(
    ("names", "alpha", "metadata", "scale"),
    [
        (("unet.{}.lora_A.weight", "unet.{}.lora_B.weight"), None, None, 1.0),
        (("unet.{}.lora.down.weight", "unet.{}.lora.up.weight"), 6.0, None, 2.0),
        (
            ("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"),
            None,
            None,
            1.0,
        ),
        (("{}.lora_A.default.weight", "{}.lora_B.default.weight"), None, None, 1.0),
        (
            ("unet.{}.lora_A.weight", "unet.{}.lora_B.weight"),
            None,
            {"lora_adapter_metadata": json.dumps({"unet.r": 3, "unet.lora_alpha": 12})},
            4.0,
        ),
    ],
)
def test_a_lora_file_is_merged(
    toy: OneStepRestorer,
    toy_file: Path,
    tmp_path: Path,
    names: tuple[str, str],
    alpha: float | None,
    metadata: Any,
    scale: float,
) -> None:
    a, b = torch.randn(3, 16), torch.randn(16, 3)
    tensors = {names[0].format(LAYER): a, names[1].format(LAYER): b}
    if alpha is not None:
        tensors[f"unet.{LAYER}.alpha"] = torch.tensor(alpha)
    conv_a, conv_b = torch.randn(2, 3, 3, 3), torch.randn(16, 2, 1, 1)
    tensors |= {"vae.encoder.conv_in.lora_A.weight": conv_a}
    tensors |= {"vae.encoder.conv_in.lora_B.weight": conv_b}
    file = lora_file(tmp_path / "lora.safetensors", tensors, metadata)
    out = import_weights(file, "lora", tmp_path / "o.safetensors", base=toy_file)

    expected = dict(toy.state_dict())
    expected[f"unet.{LAYER}.weight"] = expected[f"unet.{LAYER}.weight"] + scale * b @ a
    name = "autoencoder.encoder.conv_in.weight"
    expected[name] = expected[name] + torch.einsum("or,rihw->oihw", conv_b[..., 0, 0], conv_a)
    got = load_model(out).state_dict()
    assert got.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(got[key], tensor, atol=1e-5, rtol=1e-5, msg=key)


def test_pefts_settings_beside_the_file_count(
    toy: OneStepRestorer, toy_file: Path, tmp_path: Path
) -> None:
    a, b = torch.randn(3, 16), torch.randn(16, 3)
    tensors = {f"{LAYER}.lora_A.weight": a, f"{LAYER}.lora_B.weight": b}
    file = lora_file(tmp_path / "adapter_model.safetensors", tensors)
    settings = tmp_path / "adapter_config.json"
    settings.write_text(json.dumps({"lora_alpha": 6}))
    out = import_weights(file, "lora", tmp_path / "o.safetensors", base=toy_file)
    expected = toy.state_dict()[f"unet.{LAYER}.weight"] + 2.0 * b @ a
    got = load_model(out).state_dict()[f"unet.{LAYER}.weight"]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)

    settings.write_text(json.dumps({"lora_alpha": 6, "use_dora": True}))
    with pytest.raises(WeightsError, match="use_dora"):
        import_weights(file, "lora", tmp_path / "o.safetensors", base=toy_file)


def test_a_lora_file_over_a_diffusers_folder(goldens: Path, tmp_path: Path) -> None:
    a, b = torch.randn(2, 16), torch.randn(16, 2)
    tensors = {f"unet.{LAYER}.lora_A.weight": a, f"unet.{LAYER}.lora_B.weight": b}
    file = lora_file(tmp_path / "lora.safetensors", tensors)
    base = goldens / "osediff" / "base"
    out = import_weights(file, "lora", tmp_path / "o.safetensors", base=base, prompt="photo")
    assert load_model(out).config.prompt == TextPromptConfig(n_queries=77, width=64, text="photo")
    expected = load_diffusers_base(base).tensors[f"unet.{LAYER}.weight"] + b @ a
    got = load_model(out).state_dict()[f"unet.{LAYER}.weight"]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_a_lora_file_with_a_wrong_key_names_it(toy_file: Path, tmp_path: Path) -> None:
    a, b = torch.randn(3, 16), torch.randn(16, 3)
    good = {f"unet.{LAYER}.lora_A.weight": a, f"unet.{LAYER}.lora_B.weight": b}
    cases: list[tuple[dict[str, Tensor], str]] = [
        ({f"unet.{LAYER}.lora_A.weight": a}, f"{LAYER} lacks a matrix"),
        ({**good, "text_encoder.x.lora_A.weight": a + 1}, "text_encoder"),
        ({**good, "unet.conv_in.weight": a + 1}, "conv_in.weight is not a LoRA key"),
        ({**good, f"unet.{LAYER}.lora_B.weight": b[:5]}, r"lora_B.default.weight is \(5, 3\)"),
        (
            {"unet.none.lora_A.weight": a, "unet.none.lora_B.weight": b},
            "layer that the model does not have: none",
        ),
        ({}, "does not contain a LoRA"),
    ]
    for tensors, message in cases:
        file = lora_file(tmp_path / "lora.safetensors", tensors)
        with pytest.raises(WeightsError, match=message):
            import_weights(file, "lora", tmp_path / "o.safetensors", base=toy_file)


def test_whole_weights_of_a_network_without_lora_are_taken(toy_file: Path, tmp_path: Path) -> None:
    a, b, bias = torch.randn(3, 16), torch.randn(16, 3), torch.randn(16)
    tensors = {f"unet.{LAYER}.lora_A.weight": a, f"unet.{LAYER}.lora_B.weight": b}
    tensors["modules_to_save.vae.encoder.conv_in.bias"] = bias
    file = lora_file(tmp_path / "lora.safetensors", tensors)
    out = import_weights(file, "lora", tmp_path / "o.safetensors", base=toy_file)
    got, base = read_checkpoint(out).tensors, read_checkpoint(toy_file).tensors
    assert torch.equal(got["autoencoder.encoder.conv_in.bias"], bias)
    changed = {name for name in base if not torch.equal(got[name], base[name])}
    assert changed == {"autoencoder.encoder.conv_in.bias", f"unet.{LAYER}.weight"}


def test_merging_twice_is_merging_both(toy: OneStepRestorer) -> None:
    before = toy.unet.conv_in.weight.clone()
    for _ in range(2):
        inject(toy.unet, {"default": ("conv_in",)}, LoRAConfig())
        for tensor in lora_state(toy.unet).values():
            tensor.fill_(0.1)
        merge(toy.unet)
    # 2 merges × scale 2 × rank 4 × 0.1 × 0.1
    torch.testing.assert_close(toy.unet.conv_in.weight, before + 0.16, atol=1e-6, rtol=0)
