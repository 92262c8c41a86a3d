"""`--decoder`: fetched, restored with, written into recipes, replayed, refused."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest

import toy_decoders
import toy_models
from hbr.files import sha256
from hbr.weights import catalogue, entries


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model on Stable Diffusion's latents, and a folder with TAESD and VOSR's decoder for it."""
    folder = tmp_path_factory.mktemp("decoder_option")
    toy_models.write(folder / "model.safetensors", toy_decoders.CONFIG)
    toy_decoders.write_known(folder / "weights")
    return folder


@pytest.fixture
def restore(models, call_hbr, photo, tmp_path, monkeypatch):
    monkeypatch.setenv("HBR_WEIGHTS", str(models / "weights"))
    photo(tmp_path / "a.png", size=(64, 64))

    def run(*options, out="b.png", model=models / "model.safetensors", overwrite=("--overwrite",)):
        return call_hbr(
            *("restore", "a.png", "-o", out, "--model", model, "--dtype", "float32"),
            *(*overwrite, "--log-format", "json", *options),
            cwd=tmp_path,
        )

    return run


def pixels(path):
    return np.asarray(PIL.Image.open(path))


@pytest.mark.parametrize("name", ["taesd", "sd21-lwdecoder"])
def test_a_known_decoder_restores_and_is_replayed(restore, models, call_hbr, tmp_path, name):
    own = restore(out="own.png")
    assert own.returncode == 0, own.stderr
    assert record(own)["provenance"]["decoder"] is None
    done = restore("--decoder", name)
    assert (done.returncode, "not say which latents" in done.stderr) == (0, False), done.stderr
    file = models / "weights" / name / entries()[name].files[0].path
    used = {"name": name, "sha256": sha256(file)}
    assert record(done)["provenance"]["decoder"] == used
    assert not np.array_equal(pixels(tmp_path / "own.png"), pixels(tmp_path / "b.png"))
    shown = json.loads(call_hbr("replay", "b.png", "--show", cwd=tmp_path).stdout)
    assert shown["model"]["decoder"] == used
    assert (
        "decoder"
        not in json.loads(call_hbr("replay", "own.png", "--show", cwd=tmp_path).stdout)["model"]
    )
    model = models / "model.safetensors"
    again = call_hbr("replay", "b.png", "-o", "c.png", "--model", model, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "c.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_replay_takes_the_same_decoder_and_no_other(restore, models, call_hbr, tmp_path):
    model, mine = models / "model.safetensors", tmp_path / "mine.pth"
    shutil.copy(models / "weights" / "sd21-lwdecoder" / "sd21_lwdecoder.pth", mine)
    assert restore("--decoder", mine).returncode == 0
    mine.rename(tmp_path / "moved.pth")
    gone = call_hbr("replay", "b.png", "--model", model, cwd=tmp_path)
    assert (gone.returncode, gone.stderr) == (
        4,
        "hbr: mine.pth was a file of its own; --decoder names it\n",
    )
    other = call_hbr("replay", "b.png", "--model", model, "--decoder", "taesd", cwd=tmp_path)
    assert other.returncode == 4
    assert "taesd is another decoder than the one that made the file" in other.stderr
    right = ("--decoder", "moved.pth")
    assert call_hbr("replay", "b.png", "--model", model, *right, cwd=tmp_path).returncode == 0
    assert restore(out="own.png").returncode == 0
    none = call_hbr("replay", "own.png", "--model", model, *right, cwd=tmp_path)
    assert none.returncode == 2
    assert "the file was made without one; leave it out" in none.stderr


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("--decoder", "tased"), 4, "no decoder is called 'tased'; known: taesd, sd21-lwdecoder"),
        (("--decoder", "gone.pth"), 4, "or give a file"),
        (
            ("--decoder", "taesd", "--model", "nano"),
            2,
            "those of nano.safetensors have 24 channels",
        ),
        (("--decoder", "a.png"), 4, "a.png"),
        (("--model", "taesd"), 4, "taesd is a decoder, not a model: `--decoder taesd` puts it in"),
    ],
)
def test_what_does_not_fit_is_one_line_and_no_file(restore, tmp_path, options, code, told):
    done = restore(*options, out="none.png")
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert told in lines[0]
    assert not (tmp_path / "none.png").exists()


def test_a_decoder_that_is_not_here_says_how_to_get_it(call_hbr, models, photo, tmp_path):
    photo(tmp_path / "a.png")
    model = models / "model.safetensors"
    done = call_hbr(
        *("restore", "a.png", "-o", "b.png", "--model", model, "--decoder", "taesd"), cwd=tmp_path
    )
    assert done.returncode == 4
    assert "`hbr fetch taesd` gets them (licence: MIT)" in done.stderr


def test_resuming_by_contents_sees_another_decoder(call_hbr, models, photo, tmp_path, monkeypatch):
    monkeypatch.setenv("HBR_WEIGHTS", str(models / "weights"))
    photo(tmp_path / "a.png")
    asked = ("restore", "a.png", "-o", "out/", "--model", models / "model.safetensors")

    def made(*options):
        done = call_hbr(*asked, "--resume-by", "content", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return (tmp_path / "out" / "a.png").read_bytes(), "restored" in done.stderr

    own, tiny = made(), made("--decoder", "taesd")
    assert own[0] != tiny[0]
    assert made("--decoder", "taesd")[0] == tiny[0]
    assert made()[0] == own[0]


def test_resuming_by_contents_hashes_model_and_decoder_once(restore, models, monkeypatch):
    hashed = []
    monkeypatch.setattr(catalogue, "sha256", lambda path: hashed.append(path.name) or sha256(path))
    done = restore("--resume-by", "content", "--decoder", "taesd", overwrite=())
    assert done.returncode == 0, done.stderr
    assert sorted(hashed) == ["model.safetensors", "taesd_decoder.safetensors"]


@pytest.mark.slow
def test_the_graph_of_another_decoder_is_another(restore, models, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    own = restore("--backend", "onnx", out="own.png")
    done = restore("--backend", "onnx", "--decoder", "taesd", out="tiny.png")
    eager = restore("--backend", "eager", "--decoder", "taesd", out="eager.png")
    assert (own.returncode, done.returncode, eager.returncode) == (0, 0, 0), done.stderr
    assert [record(x)["provenance"]["backend"] for x in (own, done)] == ["onnx", "onnx"]
    off = pixels(tmp_path / "tiny.png").astype(int) - pixels(tmp_path / "eager.png")
    assert abs(off).max() <= 1
    assert not np.array_equal(pixels(tmp_path / "own.png"), pixels(tmp_path / "tiny.png"))
    cards = [
        json.loads(card.read_text()) for card in (models / "weights" / "graphs").glob("*/card.json")
    ]
    digest = sha256(models / "weights" / "taesd" / "taesd_decoder.safetensors")
    assert sorted(str(card["decoder"]) for card in cards) == sorted(["None", digest])


def record(done):
    return json.loads(done.stdout.splitlines()[0])
