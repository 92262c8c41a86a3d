"""What a file is taken for; what is not known is not guessed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hbr.models import OneStepRestorer, WeightsError, build, load_model, read_checkpoint
from hbr.models.importing import import_weights, recognise
from hbr.models.part_files import write_part

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
KOHYA = "lora_unet_" + LAYER.replace(".", "_")


def saved(path: Path, *names: str, **metadata: str) -> Path:
    """A file of weights with these names."""
    tensors = {name: torch.full((i + 1, 2), float(i)) for i, name in enumerate(names)}
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata=metadata or None)
    else:
        torch.save({"state_dict": tensors}, path)
    return path


def test_every_kind_is_recognised_by_its_names(
    goldens: Path, toy: OneStepRestorer, tmp_path: Path
) -> None:
    osediff = goldens / "osediff"
    for suffix, module, kind in (
        (".safetensors", toy.unet, "unet"),
        (".bin", toy.autoencoder, "vae"),
    ):
        file = tmp_path / f"network{suffix}"
        (save_file if suffix == ".safetensors" else torch.save)(module.state_dict(), file)
        assert recognise(file).kind == kind
    for file, kind in (
        (osediff / "osediff.pkl", "osediff"),
        (osediff / "base", "diffusers"),
        (osediff / "base" / "unet" / "diffusion_pytorch_model.safetensors", "unet"),
        (osediff / "base" / "vae" / "diffusion_pytorch_model.safetensors", "vae"),
        (goldens / "ram" / "ram.pth", "ram"),
    ):
        found = recognise(file)
        assert found.kind == kind, found.report


@pytest.mark.parametrize(
    "names",
    [
        ("unet.{}.lora_A.weight", "unet.{}.lora_B.weight"),
        ("unet.{}.lora.down.weight", "unet.{}.lora.up.weight"),
        ("{}.lora_A.default.weight", "{}.lora_B.default.weight", "vae.encoder.x.lora_A.weight"),
        ("unet.a.processor.to_q_lora.down.weight", "unet.a.processor.to_q_lora.up.weight"),
        ("lora_unet_a_to_q.lora_down.weight", "lora_unet_a_to_q.lora_up.weight", "lora_te_a.alpha"),
    ],
)
def test_loras_are_recognised(tmp_path: Path, names: tuple[str, ...]) -> None:
    file = saved(tmp_path / "x.safetensors", *(name.format(LAYER) for name in names))
    assert recognise(file).kind == "lora"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.a"), "one file"),
        (("text_model.encoder.layers.0.mlp.fc1.weight",), "CLIP text encoder"),
        (("add_embedding.linear_1.weight", "conv_in.weight"), "Stable Diffusion XL"),
        (("controlnet_mid_block.weight", "conv_in.weight"), "ControlNet"),
        (("double_blocks.0.img_attn.qkv.weight", "img_in.weight"), "Flux"),
        (("conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.bias"), "hbr restore"),
        (("a.hada_w1_a", "a.hada_w1_b", "a.alpha"), "LyCORIS"),
        (("visual_encoder.layers.0.blocks.0.attn.qkv.lora_A",), "DAPE"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_others_are_named_and_refused(
    tmp_path: Path, names: tuple[str, ...], told: str, suffix: str
) -> None:
    file, out = saved(tmp_path / f"x{suffix}", *names), tmp_path / "o.safetensors"
    with pytest.raises(WeightsError, match=told) as error:
        import_weights(file, "auto", out)
    assert str(file) in str(error.value)
    assert not out.exists()


def test_an_unknown_layout_is_reported_and_not_guessed(
    toy: OneStepRestorer, tmp_path: Path
) -> None:
    file = saved(tmp_path / "x.safetensors", "first.thing", "second.thing")
    with pytest.raises(
        WeightsError, match=r"none of its 2 names is known, as first.thing \(1, 2\)"
    ):
        import_weights(file, "auto", tmp_path / "o.safetensors")
    # half of it is a U-Net's
    names = [name for name in toy.unet.state_dict() if name.startswith("conv_in")]
    file = saved(tmp_path / "y.safetensors", *names, "a.b", "c.d")
    told = r"of its 4 names, 2 are as in a U-Net .*, 2 are not, as a.b \(3, 2\), c.d \(4, 2\)"
    with pytest.raises(WeightsError, match=told):
        import_weights(file, "auto", tmp_path / "o.safetensors")
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="it contains a list, not named weights"):
        import_weights(tmp_path / "list.pth", "auto", tmp_path / "o.safetensors")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").touch()
    with pytest.raises(WeightsError, match=r"it has a.txt; a diffusers folder would have unet/"):
        import_weights(tmp_path / "folder", "auto", tmp_path / "o.safetensors")
    assert not (tmp_path / "o.safetensors").exists()


def test_what_hbr_wrote_is_told_from_what_must_come_in(
    toy: OneStepRestorer, toy_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o.safetensors"
    prompt = write_part(tmp_path / "prompt.safetensors", read_checkpoint(toy_file), "prompt")
    state = saved(tmp_path / "state.safetensors", "optimizer.step.a", "model.a", step="3")
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(toy_file, run / "model.safetensors")
    for source, told in (
        (toy_file, "a model file of hbr already"),
        (prompt, "--prompt-file puts it into a restorer"),
        (state, "model.safetensors beside it"),
        (run, f"holds a model of hbr: {run / 'model.safetensors'}, as it is"),
    ):
        with pytest.raises(WeightsError) as error:
            import_weights(source, "auto", out)
        assert told in str(error.value)


def test_folders_of_other_pipelines_are_named(goldens: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sdxl"
    for part in ("unet", "vae"):
        (folder / part).mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    with pytest.raises(WeightsError, match="StableDiffusionXLPipeline"):
        import_weights(folder, "auto", tmp_path / "o.safetensors")
    peft = tmp_path / "peft"
    peft.mkdir()
    file = saved(peft / "adapter_model.safetensors", "a.lora_A.weight", "a.lora_B.weight")
    with pytest.raises(WeightsError, match=f"give {file}"):
        import_weights(peft, "auto", tmp_path / "o.safetensors")


def test_a_wrong_kind_is_told_what_the_file_is(
    goldens: Path, toy_file: Path, tmp_path: Path
) -> None:
    osediff, ram = goldens / "osediff" / "osediff.pkl", goldens / "ram" / "ram.pth"
    lora = saved(tmp_path / "l.safetensors", f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight")
    vae = goldens / "osediff" / "base" / "vae" / "diffusion_pytorch_model.safetensors"
    cases: list[tuple[Path, Any, str]] = [
        (osediff, "ram", "not of kind ram: recognised an OSEDiff checkpoint.*--kind osediff"),
        (osediff, "lora", "--kind osediff"),
        (ram, "osediff", "recognised a RAM checkpoint by .* names"),
        (vae, "unet", "recognised an autoencoder .*; --kind vae"),
        (lora, "unet", "recognised a LoRA by 2 of 2 names; --kind lora"),
        (lora, "ram", "--kind lora"),
        (toy_file, "lora", "a model file of hbr already"),
        (osediff, "diffusers", "--kind osediff"),
    ]
    for source, kind, told in cases:
        base = None if kind in ("ram", "diffusers") else toy_file
        with pytest.raises(WeightsError, match=told):
            import_weights(source, kind, tmp_path / "o.safetensors", base=base)


@torch.no_grad()
def test_a_network_alone_takes_the_place_of_the_bases(
    toy: OneStepRestorer, toy_file: Path, tmp_path: Path
) -> None:
    for part, kind in (("unet", "unet"), ("autoencoder", "vae")):
        changed = {n: t + 1 for n, t in getattr(toy, part).state_dict().items()}
        file = tmp_path / f"{kind}.safetensors"
        save_file(changed, file)
        out = import_weights(file, "auto", tmp_path / "o.safetensors", base=toy_file)
        got = load_model(out).state_dict()
        for name, tensor in toy.state_dict().items():
            own = name.startswith(f"{part}.")
            assert torch.equal(got[name], tensor + 1 if own else tensor), name
        missing = next(iter(changed))
        save_file({n: t for n, t in changed.items() if n != missing}, file)
        with pytest.raises(WeightsError, match=f"{missing} is missing"):
            import_weights(file, kind, tmp_path / "o.safetensors", base=toy_file)  # type: ignore[arg-type]


@torch.no_grad()
@pytest.mark.parametrize("style", ["kohya", "processor"])
def test_other_namings_of_a_lora_are_merged(
    toy: OneStepRestorer, toy_file: Path, tmp_path: Path, style: str
) -> None:
    a, b = torch.randn(3, 16), torch.randn(16, 3)
    if style == "kohya":
        tensors = {f"{KOHYA}.lora_down.weight": a, f"{KOHYA}.lora_up.weight": b}
        tensors[f"{KOHYA}.alpha"] = torch.tensor(6.0)
        layer, scale = LAYER, 2.0
    else:
        layer, scale = LAYER.replace("to_q", "to_out.0"), 1.0
        old = "unet." + LAYER.replace("to_q", "processor.to_out_lora")
        tensors = {f"{old}.down.weight": a, f"{old}.up.weight": b}
    file = tmp_path / "lora.safetensors"
    save_file(tensors, file)
    out = import_weights(file, "auto", tmp_path / "o.safetensors", base=toy_file)
    got = build(read_checkpoint(out)).state_dict()[f"unet.{layer}.weight"]
    expected = toy.state_dict()[f"unet.{layer}.weight"] + scale * b @ a
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_a_lora_for_other_modules_names_them(toy_file: Path, tmp_path: Path) -> None:
    good = (f"{KOHYA}.lora_down.weight", f"{KOHYA}.lora_up.weight")
    for names, told in (
        ((*good, "lora_te_text_model_x.lora_down.weight"), "1 of its 3 keys .* as lora_te_text"),
        (("transformer.x.lora_A.weight",), "1 of its 1 keys .* as transformer.x"),
        (
            (
                "lora_unet_input_blocks_1.lora_down.weight",
                "lora_unet_input_blocks_1.lora_up.weight",
            ),
            "1 of its 1 layers are not in the base; .* input_blocks_1",
        ),
    ):
        file = saved(tmp_path / "lora.safetensors", *names)
        with pytest.raises(WeightsError, match=told):
            import_weights(file, "auto", tmp_path / "o.safetensors", base=toy_file)


def test_peft_metadata_that_is_no_json_is_an_error(toy_file: Path, tmp_path: Path) -> None:
    names = (f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight")
    file = saved(tmp_path / "l.safetensors", *names, lora_adapter_metadata=json.dumps([1]))
    with pytest.raises(WeightsError, match="lora_adapter_metadata is not JSON"):
        import_weights(file, "auto", tmp_path / "o.safetensors", base=toy_file)
