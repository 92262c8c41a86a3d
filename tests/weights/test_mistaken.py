"""Files that lie in place of weights are named as what they are, by every reader of weights."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hbr.errors import HbrError
from hbr.metrics.files import read_state
from hbr.models.importing import recognise
from hbr.models.importing.reading import load_pickle
from hbr.people.onnx_files import open_session
from hbr.weights import find_model, instead_of_weights

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"
MISTAKEN = [
    (POINTER, "is a Git LFS pointer, not the weights; `git lfs pull` gets them"),
    (b"\xef\xbb\xbf" + POINTER, "is a Git LFS pointer"),
    (b"/annex/objects/SHA256E-s9--00.pth\n", "is a git-annex pointer"),
    (b"\n <!DOCTYPE HTML><html>sign in</html>", "is an HTML page, not weights"),
    (b"<?xml version='1.0'?><!DOCTYPE x><html></html>", "is an HTML page"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an XML document"),
    (b'{"error": "not found"}', 'is JSON, not weights; it begins \'{"error"'),
    ("Zugriff verweigert: Schlüssel".encode(), "is a text file, not weights; it begins 'Zugriff"),
    (b"", "is empty or all zeros"),
    (bytes(5000), "is empty or all zeros"),
]


@pytest.mark.parametrize(("content", "said"), MISTAKEN)
@pytest.mark.parametrize(
    ("suffix", "read"),
    [
        (".safetensors", recognise),
        (".pth", recognise),
        (".pkl", load_pickle),
        (".pth", read_state),
        (".safetensors", read_state),
        (".pth", find_model),
    ],
)
def test_it_is_called_what_it_is(
    tmp_path: Path, content: bytes, said: str, suffix: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(HbrError) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path} {said}")
    assert "code" not in str(raised.value)


def test_a_detector_that_is_a_pointer(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "detector.onnx"
    path.write_bytes(POINTER)
    with pytest.raises(HbrError, match="is a Git LFS pointer"):
        open_session(path, "cpu")


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("run",)


def test_pickles_are_no_text(tmp_path: Path) -> None:
    """Protocol 0 is all printable, and may run code."""
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(Evil(), protocol=0))
    assert instead_of_weights(path) is None
    with pytest.raises(HbrError, match="could run code"):
        load_pickle(path)
    torch.save({"a": torch.zeros(2)}, path)
    assert instead_of_weights(path) is None
    assert instead_of_weights(tmp_path / "missing.pth") is None
