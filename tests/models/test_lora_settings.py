"""How strong a LoRA is merged, by whatever its file or its folder states."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from hbr.models import OneStepRestorer, WeightsError, load_model
from hbr.models.exporting.loras import export_lora
from hbr.models.importing import ArgumentError, import_weights

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def lora_file(path: Path, tensors: dict[str, Tensor], metadata: Any = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path, metadata=metadata)
    return path


def peft_config(**changes: Any) -> dict[str, Any]:
    """What diffusers and peft write of a LoRA of rank 3 and α 12 on one layer."""
    return {
        **LoraConfig(r=3, lora_alpha=12, target_modules=[LAYER]).to_dict(),
        "peft_type": "LORA",
        "target_modules": [LAYER],
        **changes,
    }


def scale_of(out: Path, before: Tensor, a: Tensor, b: Tensor) -> float:
    """By which factor B A was added to the layer."""
    delta = load_model(out).state_dict()[f"unet.{LAYER}.weight"] - before
    return float((delta * (b @ a)).sum() / (b @ a).square().sum())


PACKED = "lora_adapter_metadata"
KOHYA = "lora_unet_" + LAYER.replace(".", "_")


@pytest.mark.parametrize(
    ("metadata", "scale"),
    [
        # as the model's own save_lora_adapter of diffusers writes it, and as its pipelines do
        ({PACKED: json.dumps(peft_config())}, 4.0),
        ({PACKED: json.dumps({f"unet.{k}": v for k, v in peft_config().items()})}, 4.0),
        ({PACKED: json.dumps(peft_config(use_rslora=True))}, 12 / 3**0.5),
        ({PACKED: json.dumps(peft_config(alpha_pattern={"attn1.to_q": 6}))}, 2.0),
        ({PACKED: json.dumps(peft_config(lora_alpha=0))}, 0.0),
        ({PACKED: json.dumps(peft_config(r=16, rank_pattern={LAYER: 3}))}, 4.0),
        ({"peft_config": json.dumps(peft_config())}, 4.0),
        ({"lora_alpha": "12"}, 4.0),
        ({"network_alpha": "12", "rank": "3"}, 4.0),
        ({"unet.lora_alpha": "12", "vae.lora_alpha": "3"}, 4.0),
        ({"ss_network_alpha": "12", "ss_network_dim": "8"}, 4.0),
        ({"ss_network_alpha": "None", "ss_network_dim": "3"}, 1.0),
    ],
)
def test_every_way_to_state_alpha(
    toy: OneStepRestorer, toy_file: Path, tmp_path: Path, metadata: Any, scale: float
) -> None:
    a, b = torch.randn(3, 16), torch.randn(16, 3)
    before = toy.state_dict()[f"unet.{LAYER}.weight"]
    tensors = {f"{LAYER}.lora_A.weight": a, f"{LAYER}.lora_B.weight": b}
    file = lora_file(tmp_path / "lora.safetensors", tensors, metadata)
    lines: list[str] = []
    out = tmp_path / "o.safetensors"
    import_weights(file, "lora", out, base=toy_file, report=lines.append)
    assert scale_of(out, before, a, b) == pytest.approx(scale, abs=1e-5)
    warnings = [line for line in lines if line.startswith("warning")]
    assert len(warnings) == (metadata.get("ss_network_alpha") == "None")
    import_weights(file, "lora", out, base=toy_file, alpha=9.0)
    by_option = 9 / 3**0.5 if scale == 12 / 3**0.5 else 3.0
    assert scale_of(out, before, a, b) == pytest.approx(by_option, abs=1e-5)


def test_alpha_of_each_layer_of_kohya_counts_before_the_metadata(
    toy: OneStepRestorer, toy_file: Path, tmp_path: Path
) -> None:
    a, b = torch.randn(3, 16), torch.randn(16, 3)
    before = toy.state_dict()[f"unet.{LAYER}.weight"]
    tensors = {f"{KOHYA}.lora_down.weight": a, f"{KOHYA}.lora_up.weight": b}
    tensors[f"{KOHYA}.alpha"] = torch.tensor(6.0)
    metadata = {"ss_network_alpha": "12", "ss_network_args": '{"conv_alpha": "1"}'}
    file = lora_file(tmp_path / "lora.safetensors", tensors, metadata)
    lines: list[str] = []
    out = tmp_path / "o.safetensors"
    import_weights(file, "lora", out, base=toy_file, report=lines.append)
    assert scale_of(out, before, a, b) == pytest.approx(2.0, abs=1e-5)
    assert [line for line in lines if "ss_network_args = " in line]


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"use_dora": True}, "use_dora is on"),
        ({"bias": "all"}, "bias is all"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is on"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is pissa_niter_4"),
        ({"peft_type": "LOHA"}, "peft_type is LOHA"),
        ({"modules_to_save": ["conv_in"]}, "modules_to_save is"),
        ({"of_the_future": 0.5}, r"of_the_future is 0\.5; hbr merges plain LoRA only"),
        ({"lora_alpha": "x"}, "lora_alpha is 'x'; it must be a number"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"alpha_pattern": {"(": 6}}, r"alpha_pattern is \{'\(': 6\}; it must map patterns to num"),
        (
            {"alpha_pattern": {"(?i)to_q": 6}},
            "alpha_pattern is .*; it must map patterns to numbers",
        ),
        ({"rank_pattern": ["to_q"]}, r"rank_pattern is \['to_q'\]; it must map patterns to num"),
        ({"r": 4}, "states rank 4 for .*, its matrices have rank 3"),
    ],
)
def test_a_lora_that_is_not_plain_is_refused(
    toy_file: Path, tmp_path: Path, config: dict[str, Any], match: str
) -> None:
    a, b = torch.randn(3, 16), torch.randn(16, 3)
    tensors = {f"{LAYER}.lora_A.weight": a, f"{LAYER}.lora_B.weight": b}
    told = json.dumps(peft_config(**config))
    inside = lora_file(tmp_path / "lora.safetensors", tensors, {PACKED: told})
    beside = lora_file(tmp_path / "peft" / "mine.safetensors", tensors)
    (tmp_path / "peft" / "adapter_config.json").write_text(told)
    for file in (inside, beside):
        with pytest.raises(WeightsError, match=match):
            import_weights(file, "lora", tmp_path / "o.safetensors", base=toy_file)
    assert not (tmp_path / "o.safetensors").exists()


def test_a_configuration_beside_a_lora_is_used_or_named(
    toy: OneStepRestorer, toy_file: Path, tmp_path: Path
) -> None:
    a, b = torch.randn(3, 16), torch.randn(16, 3)
    before = toy.state_dict()[f"unet.{LAYER}.weight"]
    name = f"base_model.model.{LAYER}"
    tensors = {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    mine = lora_file(tmp_path / "mine.safetensors", tensors)
    (tmp_path / "adapter_config.json").write_text(json.dumps(peft_config()))
    out = tmp_path / "out" / "o.safetensors"

    def imported(file: Path) -> tuple[float, list[str]]:
        lines: list[str] = []
        import_weights(file, "lora", out, base=toy_file, report=lines.append)
        return round(scale_of(out, before, a, b), 4), [x for x in lines if x.startswith("warn")]

    out.parent.mkdir()
    assert imported(mine) == (4.0, [])
    # another file beside it, which the configuration belongs to
    lora_file(tmp_path / "adapter_model.safetensors", tensors)
    scale, warnings = imported(mine)
    assert scale == 1.0
    assert "adapter_config.json was not used: it belongs to adapter_model" in warnings[0]
    assert "does not state α for 1 layers" in warnings[1]
    # the file's own settings come first; what is not known is named
    own = lora_file(tmp_path / "own.safetensors", tensors, {"alpha": "6", "scale": "0.5"})
    scale, warnings = imported(own)
    assert scale == 2.0
    assert "metadata that are not known here: scale = '0.5'" in warnings[1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_imported(
    toy: OneStepRestorer, toy_file: Path, tmp_path: Path, value: float
) -> None:
    tensors = {f"{LAYER}.lora_A.weight": torch.randn(3, 16)}
    tensors[f"{LAYER}.lora_B.weight"] = torch.full((16, 3), value)
    cases = [("lora", lora_file(tmp_path / "lora.safetensors", tensors))]
    network = {name: t.clone() for name, t in toy.unet.state_dict().items()}
    network["conv_out.bias"][1] = value
    cases.append(("unet", lora_file(tmp_path / "unet.safetensors", network)))
    for kind, file in cases:
        with pytest.raises(WeightsError, match=r"(lora_B|conv_out.bias).* not finite"):
            import_weights(file, kind, tmp_path / "o.safetensors", base=toy_file)  # type: ignore[arg-type]
        assert not (tmp_path / "o.safetensors").exists()


def test_alpha_is_only_for_a_lora(toy: OneStepRestorer, toy_file: Path, tmp_path: Path) -> None:
    file = lora_file(tmp_path / "unet.safetensors", toy.unet.state_dict())
    with pytest.raises(ArgumentError, match="--alpha is the α of a LoRA; --kind is unet"):
        import_weights(file, "auto", tmp_path / "o.safetensors", base=toy_file, alpha=1.0)


def test_a_lora_of_diffusers_is_exported_at_its_strength(tmp_path: Path) -> None:
    a, b = torch.randn(3, 16), torch.randn(16, 3)
    tensors = {f"unet.{LAYER}.lora_A.weight": a, f"unet.{LAYER}.lora_B.weight": b}
    file = lora_file(tmp_path / "lora.safetensors", tensors, {PACKED: json.dumps(peft_config())})
    export_lora(file, tmp_path / "out.safetensors")
    got = load_file(tmp_path / "out.safetensors")
    torch.testing.assert_close(got[f"unet.{LAYER}.lora_B.weight"], 4 * b)
    torch.testing.assert_close(got[f"unet.{LAYER}.lora_A.weight"], a)


@pytest.mark.parametrize("shape", [(), (4,), (0, 4)])
def test_a_matrix_without_a_rank_is_one_clear_line(
    tmp_path: Path, toy_file: Path, shape: tuple[int, ...]
) -> None:
    names = (f"unet.{LAYER}.lora_{matrix}.weight" for matrix in "AB")
    file, out = tmp_path / "lora.safetensors", tmp_path / "o.safetensors"
    tensors = dict(zip(names, (torch.zeros(shape), torch.zeros(16, 0)), strict=True))
    save_file(tensors, file, {"lora_adapter_metadata": "{}"})
    told = f"A of {LAYER} is {shape}; a matrix is needed"
    with pytest.raises(WeightsError, match=re.escape(told)):
        export_lora(file, out)
    with pytest.raises(WeightsError, match=re.escape(told)):
        import_weights(file, "lora", out, base=toy_file)
