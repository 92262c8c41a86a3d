"""What is exported computes the same in the libraries that it is exported to."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hbr.models import OneStepRestorer, WeightsError, save_checkpoint
from hbr.models.checkpoint import Checkpoint, read_checkpoint
from hbr.models.config import DAPEConfig, HFIEConfig, LoRAConfig, TaggerConfig
from hbr.models.exporting.adapters import Adapter, adapter_of, write_lora
from hbr.models.exporting.folder import export_folder
from hbr.models.exporting.loras import export_lora
from hbr.models.importing import import_weights
from hbr.models.loading import load_model
from hbr.models.lora import autoencoder_targets, inject, lora_state, merged_state, unet_targets
from hbr.models.part_files import load_prompt, write_part
from hbr.models.schedule import alphas_cumprod
from hbr.models.text import load_text_encoder
from hbr.weights import find_model

WEIGHTS = "diffusion_pytorch_model.safetensors"


def adapted(toy: OneStepRestorer, config: LoRAConfig) -> dict[str, Adapter]:
    """Random adapters on the model, as a training has them, and what is exported of them."""
    for part, find in (("unet", unet_targets), ("autoencoder", autoencoder_targets)):
        module = getattr(toy, part)
        inject(module, find(module), config)
        for tensor in lora_state(module).values():
            tensor.copy_(torch.randn_like(tensor) * 0.1)
    names = ("default_encoder", "default_decoder", "default_others")
    return {part: adapter_of(getattr(toy, part), names) for part in ("unet", "autoencoder")}


def metadata(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as opened:
        return dict(opened.metadata())


@torch.no_grad()
@pytest.mark.parametrize("config", [LoRAConfig(), LoRAConfig(rank=3, alpha=5.0)])
@pytest.mark.parametrize("told", [True, False], ids=["with metadata", "without"])
def test_diffusers_computes_the_same_with_the_lora(
    toy: OneStepRestorer, tmp_path: Path, config: LoRAConfig, told: bool
) -> None:
    unet = UNet2DConditionModel.from_config(toy.unet.config)
    unet.load_state_dict(toy.unet.state_dict())
    vae = AutoencoderKL.from_config(toy.autoencoder.config)
    vae.load_state_dict(toy.autoencoder.state_dict())
    parts = adapted(toy, config)
    file = write_lora(tmp_path / "lora.safetensors", parts, {"base": "toy"})
    assert metadata(file)["base"] == "toy"
    for module, prefix in ((unet, "unet"), (vae, "vae")):
        if told:
            module.load_lora_adapter(tmp_path, weight_name=file.name, prefix=prefix)
        else:  # as programs do that know the keys alone
            module.load_lora_adapter(load_file(file), prefix=prefix)
    z, p, x = torch.randn(2, 4, 32, 32), torch.randn(2, 4, 32), torch.rand(2, 3, 64, 64)
    epsilon = unet(z, torch.tensor(999), p).sample
    torch.testing.assert_close(epsilon, toy.predict(z, p), atol=1e-5, rtol=1e-5)
    mode = vae.encode(x * 2 - 1).latent_dist.mode() * 0.18215
    torch.testing.assert_close(mode, toy.encode(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_exported_lora_comes_in_again(
    toy: OneStepRestorer, toy_file: Path, tmp_path: Path
) -> None:
    parts = adapted(toy, LoRAConfig(rank=3, alpha=5.0))
    z, p, x = torch.randn(2, 4, 32, 32), torch.randn(2, 4, 32), torch.rand(2, 3, 64, 64)
    file = write_lora(tmp_path / "lora.safetensors", parts)
    out = import_weights(file, "lora", tmp_path / "out.safetensors", base=toy_file)
    got = load_model(out)
    torch.testing.assert_close(got.predict(z, p), toy.predict(z, p), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.encode(x), toy.encode(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_layer_of_another_rank_is_told_in_the_metadata(tmp_path: Path) -> None:
    a, b = torch.randn(4, 8), torch.randn(8, 4)
    adapter = Adapter({"x": a, "y": a[:2].clone()}, {"x": b, "y": b[:, :2].clone()})
    file = write_lora(tmp_path / "lora.safetensors", {"unet": adapter})
    told = json.loads(metadata(file)["lora_adapter_metadata"])
    assert told["unet.r"] == told["unet.lora_alpha"] == 4
    assert told["unet.rank_pattern"] == told["unet.alpha_pattern"] == {"^y$": 2}


def python_of(card: Path) -> str:
    """The program in a card, as a reader would copy it."""
    (program,) = re.findall(r"```python\n(.*?)```", card.read_text(), flags=re.DOTALL)
    return program.replace('folder = "."', f"folder = {str(card.parent)!r}")


def tags_as_prompt(toy: OneStepRestorer, folder: Path, path: Path) -> Path:
    """A model file with a toy tagger and a folder's text encoder, both inside."""
    assert isinstance(toy.config.prompt, HFIEConfig)
    text, encoder = load_text_encoder(folder)
    tagger = TaggerConfig(
        encoder=toy.config.prompt.encoder, n_tags=3, width=16, mlp_width=16, heads=2, layers=1
    )
    unet = dataclasses.replace(toy.config.unet, cross_attention_dim=text.width)
    config = dataclasses.replace(toy.config, prompt=DAPEConfig(tagger=tagger, text=text), unet=unet)
    model = OneStepRestorer(config)
    model.prompt.text.load_state_dict(encoder.state_dict())
    model.prompt.tagger.list.put("0.1\tman\n0.2\ttree\n0.3\thouse")
    return save_checkpoint(path, config, model.state_dict())


def equal(a: Checkpoint, b: Checkpoint) -> bool:
    same = a.config == b.config and dict(a.card) == dict(b.card)
    return (
        same
        and a.tensors.keys() == b.tensors.keys()
        and all(torch.equal(a.tensors[name].float(), b.tensors[name].float()) for name in a.tensors)
    )


@torch.no_grad()
@pytest.mark.parametrize("kind", ["hfie", "text", "dape", "nano's"])
def test_a_folder_is_diffusers_own_and_comes_back_as_it_was(
    toy: OneStepRestorer, toy_file: Path, goldens: Path, tmp_path: Path, kind: str
) -> None:
    model = toy_file
    if kind == "text":
        model = tmp_path / "text.safetensors"
        import_weights(goldens / "osediff" / "base", "diffusers", model, prompt="a person")
    if kind == "dape":
        model = tags_as_prompt(toy, goldens / "osediff" / "base", tmp_path / "dape.safetensors")
    if kind == "nano's":  # pixels in squares, one level, half precision, another timestep
        model = find_model("nano")
    folder = export_folder(model, tmp_path / "folder")
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    restorer = load_model(model)
    assert torch.allclose(
        scheduler.alphas_cumprod, alphas_cumprod(restorer.config.schedule).float()
    )
    assert scheduler.config.prediction_type == "epsilon"
    program: dict[str, Any] = {}
    exec(python_of(folder / "README.md"), program)  # what the card tells its reader to do
    image = torch.rand(1, 3, 128, 128)
    torch.testing.assert_close(program["restore"](image), restorer(image), atol=3e-4, rtol=1e-4)

    again = import_weights(folder, "auto", tmp_path / "again.safetensors")
    assert equal(read_checkpoint(again), read_checkpoint(model))


def test_a_folder_is_there_whole_or_not_at_all(toy_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    with pytest.raises(OSError, match="is there already"):
        export_folder(toy_file, out)
    assert [p.name for p in out.iterdir()] == ["mine.txt"]
    left = tmp_path / ".new.part"  # by a kill
    left.mkdir()
    (left / "old").touch()
    export_folder(toy_file, tmp_path / "new")
    assert not left.exists()
    assert not (tmp_path / "new" / "old").exists()


def test_a_changed_folder_is_refused(toy_file: Path, tmp_path: Path) -> None:
    folder = export_folder(toy_file, tmp_path / "folder")
    out = tmp_path / "o.safetensors"
    with pytest.raises(WeightsError, match="leave out --prompt"):
        import_weights(folder, "diffusers", out, prompt="x")
    settings = folder / "unet" / "config.json"
    values = json.loads(settings.read_text())
    settings.write_text(json.dumps({**values, "act_fn": "gelu"}))
    with pytest.raises(WeightsError, match="act_fn"):
        import_weights(folder, "diffusers", out)
    settings.write_text(json.dumps(values))
    (folder / "prompt.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"prompt.safetensors: there is no such"):
        import_weights(folder, "diffusers", out)
    (folder / "hbr.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"hbr.json is not valid"):
        import_weights(folder, "diffusers", out)


@torch.no_grad()
def test_osediff_as_a_lora_is_osediff(goldens: Path, tmp_path: Path) -> None:
    """With the first convolution, which OSEDiff trains itself: here it is far from the base's."""
    base = goldens / "osediff" / "base"
    values = torch.load(goldens / "osediff" / "osediff.pkl", weights_only=True)
    trained = [n for n in values["state_dict_unet"] if n.startswith("conv_in.base_layer.")]
    assert len(trained) == 2
    for name in trained:
        values["state_dict_unet"][name] += 0.1 * torch.randn_like(values["state_dict_unet"][name])
    source = tmp_path / "osediff.pkl"
    torch.save(values, source)
    lines: list[str] = []
    (lora,) = export_lora(source, tmp_path / "lora.safetensors", report=lines.append)
    assert sum("conv_in." in line and "trained itself" in line for line in lines) == 2
    for kind, file in (("auto", lora), ("osediff", source)):
        import_weights(file, kind, tmp_path / f"{kind}.safetensors", base=base)  # type: ignore[arg-type]
    got, expected = (load_model(tmp_path / f"{k}.safetensors") for k in ("auto", "osediff"))
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(got.state_dict()[name], tensor, atol=1e-6, rtol=1e-6)
    import_weights(base, "diffusers", tmp_path / "base.safetensors")
    bias = "unet.conv_in.bias"
    plain = read_checkpoint(tmp_path / "base.safetensors").tensors[bias]
    assert (expected.state_dict()[bias] - plain).abs().max() > 0.05
    # read by diffusers as a LoRA without the convolution, and said so
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    unet.load_lora_adapter(tmp_path, weight_name="lora.safetensors", prefix="unet")
    assert torch.equal(unet.conv_in.base_layer.bias, plain)


@torch.no_grad()
def test_whole_weights_of_a_lora_must_fit_the_base(goldens: Path, tmp_path: Path) -> None:
    (lora,) = export_lora(goldens / "osediff" / "osediff.pkl", tmp_path / "lora.safetensors")
    tensors = load_file(lora)
    for name, tensor in (("conv_in.bias", torch.zeros(3)), ("conv_on.bias", torch.zeros(16))):
        changed = {**tensors, f"modules_to_save.unet.{name}": tensor}
        save_file(changed, tmp_path / "wrong.safetensors")
        with pytest.raises(WeightsError, match=rf"modules_to_save has {name} \[\d+\]; the base"):
            import_weights(
                tmp_path / "wrong.safetensors",
                "lora",
                tmp_path / "out.safetensors",
                base=goldens / "osediff" / "base",
            )


@torch.no_grad()
def test_what_a_training_leaves_as_lora_and_prompt(
    toy: OneStepRestorer, toy_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    parts = adapted(toy, LoRAConfig())
    write_lora(run / "lora.safetensors", parts, {"rank": "4", "alpha": "8.0", "base": "toy"})
    tuned = dict(read_checkpoint(toy_file).tensors)
    for part in ("unet", "autoencoder"):
        names = ("default_encoder", "default_decoder", "default_others")
        merged = merged_state(getattr(toy, part), names)
        tuned |= {f"{part}.{name}": tensor for name, tensor in merged.items()}
    tuned["prompt.query"] = tuned["prompt.query"] + 1  # trained beside the adapters
    model = save_checkpoint(run / "model.safetensors", toy.config, tuned)

    out = tmp_path / "out" / "lora.safetensors"
    assert export_lora(run, out, prompt=True) == [out, out.with_name("prompt.safetensors")]
    assert metadata(out)["alpha"] == "8.0"
    again = tmp_path / "again.safetensors"
    prompt = out.with_name("prompt.safetensors")
    import_weights(out, "auto", again, base=toy_file, prompt_file=prompt)
    for name, tensor in read_checkpoint(again).tensors.items():
        torch.testing.assert_close(tensor, tuned[name], atol=1e-6, rtol=1e-6, msg=name)

    for source in (run, model, run / "lora.safetensors"):
        lines: list[str] = []
        (only,) = export_lora(source, tmp_path / "u.safetensors", vae=False, report=lines.append)
        assert {name.partition(".")[0] for name in load_file(only)} == {"unet"}
        assert "vae" not in metadata(only)["lora_adapter_metadata"]
        assert "prompt extractor" in lines[-1]


@torch.no_grad()
def test_an_export_never_replaces_what_it_reads_or_its_own_prompt(
    toy: OneStepRestorer, toy_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    lora = write_lora(run / "lora.safetensors", adapted(toy, LoRAConfig()))
    model = run / "model.safetensors"
    model.write_bytes(toy_file.read_bytes())
    before = [file.read_bytes() for file in (lora, model)]
    for source in (run, model, lora):
        for out in (model, lora):
            with pytest.raises(WeightsError, match="is the file to export; name another one"):
                export_lora(source, out)
    with pytest.raises(WeightsError, match="is where the prompt extractor goes; name another file"):
        export_lora(run, tmp_path / "prompt.safetensors", prompt=True)
    assert [file.read_bytes() for file in (lora, model)] == before
    assert not (tmp_path / "prompt.safetensors").exists()


def test_what_has_no_adapters_says_so(toy_file: Path, goldens: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.safetensors"
    for source, told in (
        (toy_file, "adapters are merged"),
        (tmp_path, "adapters are merged"),
        (tmp_path / "none.safetensors", "there is no such"),
        (goldens / "osediff" / "base" / "vae" / WEIGHTS, "neither a model nor a LoRA of hbr"),
    ):
        with pytest.raises(WeightsError, match=told):
            export_lora(source, out)
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pkl")
    with pytest.raises(WeightsError, match="is not an OSEDiff checkpoint"):
        export_lora(tmp_path / "x.pkl", out)
    assert not out.exists()


def test_a_prompt_of_another_width_is_refused(
    toy: OneStepRestorer, toy_file: Path, goldens: Path, tmp_path: Path
) -> None:
    prompt = write_part(tmp_path / "prompt.safetensors", read_checkpoint(toy_file), "prompt")
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(load_prompt(prompt)(image), toy.prompt(image), atol=1e-5, rtol=0)
    with pytest.raises(WeightsError, match=r"width of 32; the cross-attention .* takes 64"):
        import_weights(
            goldens / "osediff" / "base",
            "diffusers",
            tmp_path / "o.safetensors",
            prompt_file=prompt,
        )
    with pytest.raises(WeightsError, match="does not contain a prompt extractor"):
        load_prompt(toy_file)
