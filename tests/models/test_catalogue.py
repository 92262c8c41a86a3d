import dataclasses
from pathlib import Path

import pytest

from hbr.config import ConfigError
from hbr.files import sha256
from hbr.models import WeightsError, load_model
from hbr.weights import Entry, KnownFile, available, entries, find_model, find_weights


def test_every_entry_says_where_it_is_from_and_under_which_licence() -> None:
    names = ["nano", "sd-2.1-base", "osediff", "ram-swin-l", "ram-tags", "dape"]
    assert list(entries())[: len(names)] == names
    for entry in entries().values():
        assert entry.source
        assert entry.licence
        assert entry.summary
        assert entry.files
        usable = (
            "metric",
            "restorer",
            "detector",
            "segmenter",
            "face embedding",
            "pose",
            "decoder",
            "captioner",
        )
        assert entry.embedded or entry.import_with or entry.kind in usable


def test_nano_in_the_package_is_the_one_of_the_catalogue() -> None:
    nano = entries()["nano"]
    if not nano.file.is_file():
        pytest.skip("src/hbr/weights/nano.safetensors is not there yet")
    assert nano.files[0].sha256 == sha256(nano.file), "pin nano's SHA-256 in catalogue.yaml"
    assert nano.files[0].size == nano.file.stat().st_size
    assert nano.file.stat().st_size <= 40_000_000
    assert "nano" in available()
    assert load_model("nano").config.name == "nano"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(WeightsError, match="no model is called 'nanno'"):
        find_model("nanno")


def test_a_base_given_as_a_model_says_how_to_import_it() -> None:
    with pytest.raises(WeightsError, match="hbr models import FOLDER --kind diffusers"):
        find_model("sd-2.1-base")


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".bin", ".ckpt", ".pt"])
def test_a_pickle_given_as_a_model_names_the_importing_command(suffix: str) -> None:
    with pytest.raises(WeightsError, match=f"hbr models import x/y{suffix} --kind"):
        find_model(f"x/y{suffix}")


def test_a_folder_given_as_a_model_names_the_importing_command(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="--kind diffusers"):
        find_model(tmp_path)


def test_a_wrong_hash_is_an_error(toy_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(digest: str | None) -> Entry:
        file = KnownFile(path=str(toy_file), sha256=digest)
        return dataclasses.replace(entries()["nano"], name="toy", files=(file,))

    for digest in (None, sha256(toy_file)):
        monkeypatch.setitem(entries(), "toy", entry(digest))
        assert load_model("toy").config.name == "toy"
    monkeypatch.setitem(entries(), "toy", entry("0" * 64))
    with pytest.raises(WeightsError, match="its SHA-256 is"):
        load_model("toy")


def test_the_small_networks_of_people_are_checked_whenever_they_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HBR_WEIGHTS", str(tmp_path))
    for name in ("mtcnn", "nanodet", "selfie-segmentation", "dlib-face-embedding"):
        file = tmp_path / name / entries()[name].files[0].path
        file.parent.mkdir()
        file.write_bytes(b"damaged")
        with pytest.raises(WeightsError, match="delete it, then `hbr fetch"):
            find_weights(name)


def test_a_hash_is_64_hexadecimal_digits() -> None:
    with pytest.raises(ConfigError, match="sha256"):
        KnownFile(path="a", sha256="abc")
