"""Decoders of a service: those that suit a model, its default, and another by request."""

import io
import json

import pytest
from service_photo import PHOTO

import toy_decoders
import toy_models
from hbr.image import read_photo
from hbr.restoration import Restorer
from hbr.service.server import offered
from hbr.weights import entries

NAMES = ("taesd", "sd21-lwdecoder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model on Stable Diffusion's latents, one on others, and decoders for the first."""
    folder = tmp_path_factory.mktemp("decoders")
    toy_models.write(folder / "toy.safetensors", toy_decoders.CONFIG)
    toy_models.write(folder / "other.safetensors")
    toy_decoders.write_known(folder)
    light = folder / "sd21-lwdecoder" / entries()["sd21-lwdecoder"].files[0].path
    (folder / "own.pth").write_bytes(light.read_bytes())
    return folder


@pytest.fixture(autouse=True)
def known(folder, monkeypatch):
    monkeypatch.setenv("HBR_WEIGHTS", str(folder))


def test_a_request_takes_the_default_another_decoder_or_the_model_s_own(start, folder):
    model = str(folder / "toy.safetensors")
    running = start(offer=offered([model, str(folder / "other.safetensors")], NAMES))
    views = running.client.get("/v1/models").json()
    assert [(view["name"], view["decoders"]) for view in views] == [
        ("toy", list(NAMES)),
        ("other", []),
    ]
    asked = {"": "taesd", "taesd": "taesd", "sd21-lwdecoder": "sd21-lwdecoder", "own": None}
    for field, decoder in asked.items():
        answer = running.restore(decoder=field, format="png")
        assert answer.status_code == 200, answer.text
        used = json.loads(answer.headers["x-hbr-provenance"])["decoder"]
        assert (used and used["name"]) == decoder
        expected = Restorer.from_pretrained(model, decoder=decoder)(read_photo(PHOTO)).pixels
        assert (read_photo(io.BytesIO(answer.content)).pixels == expected).all()
    answer = running.restore(model="other")
    assert json.loads(answer.headers["x-hbr-provenance"])["decoder"] is None
    for fields, may_be in (
        ({"decoder": "tased"}, "taesd, sd21-lwdecoder, own"),
        ({"decoder": str(folder / "own.pth")}, "taesd, sd21-lwdecoder, own"),
        ({"model": "other", "decoder": "taesd"}, "own"),
    ):
        answer = running.restore(**fields)
        message = f"decoder is {fields['decoder']!r}; it must be one of {may_be}, or left out"
        assert (answer.status_code, answer.json()) == (422, {"detail": message})


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--decoder", "tased"], 4, "no decoder is called 'tased'; known: taesd, sd21-lwdecoder"),
        (["--decoder", "taesd"], 2, "those of nano.safetensors have 24 channels"),
        (["--decoder", "taesd", "--decoder", "taesd"], 2, "two decoders are called taesd"),
        (["--decoder", "own.pth"], 2, "called otherwise: own is the model's own"),
        (["--model", "taesd"], 4, "`--decoder taesd` puts it in place of"),
    ],
)
def test_what_cannot_be_offered_is_one_line(call_hbr, folder, monkeypatch, options, code, message):
    monkeypatch.chdir(folder)
    done = call_hbr("serve", "--port", "0", *options)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
