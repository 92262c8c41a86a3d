"""Downloads from a real server on this machine that breaks off, changes its files and refuses."""

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hbr.config import ConfigError
from hbr.weights import DownloadError, KnownFile, fetch, weights_folder, weights_folders


@dataclass
class Server:
    """A web server: what it has, how it misbehaves, and what it was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    break_after: list[int] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    tags: bool = True
    ranges: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.ranges.append(handler.headers.get("Range"))
        if self.status:
            handler.send_error(self.status.pop(0))
            return
        data = self.files.get(handler.path)
        if data is None:
            handler.send_error(404)
            return
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
        start = int(asked[1]) if asked and handler.headers.get("If-Range") == tag else 0
        if start and start >= len(data):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        if self.tags:
            handler.send_header("ETag", tag)
        handler.end_headers()
        end = start + self.break_after.pop(0) if self.break_after else len(data)
        handler.wfile.write(data[start:end])


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        told.url = f"http://127.0.0.1:{running.server_port}"
        yield told
        running.shutdown()
        thread.join()


DATA = os.urandom(300_000)
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def known(server: Server) -> KnownFile:
    server.files["/w.bin"] = DATA
    return KnownFile(path="net/w.bin", url=f"{server.url}/w.bin", size=len(DATA), sha256=SHA)


def files_in(folder: Path) -> set[str]:
    return {p.name for p in folder.rglob("*") if p.is_file()}


def test_a_file_comes_whole(known: KnownFile, server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = fetch(known, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "net" / "w.bin"
    assert path.read_bytes() == DATA
    assert files_in(tmp_path) == {"w.bin"}
    assert seen[0] == (0, len(DATA))
    assert seen[-1] == (len(DATA), len(DATA))
    fetch(known, tmp_path)  # it is there: nobody is asked
    assert len(server.ranges) == 1


def test_a_broken_connection_is_taken_up_again(
    known: KnownFile, server: Server, tmp_path: Path
) -> None:
    server.break_after = [100_000, 50_000]
    assert fetch(known, tmp_path, pause=0.01).read_bytes() == DATA
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_what_came_is_kept_for_the_next_call(
    known: KnownFile, server: Server, tmp_path: Path
) -> None:
    server.break_after = [70_000, 1]
    with pytest.raises(DownloadError, match="what has come is kept"):
        fetch(known, tmp_path, tries=2, pause=0.01)
    assert not (tmp_path / "net" / "w.bin").exists()
    assert fetch(known, tmp_path).read_bytes() == DATA
    assert server.ranges[-1] == "bytes=70001-"


@pytest.mark.parametrize("tags", [True, False])
def test_a_file_that_changed_is_begun_anew(server: Server, tmp_path: Path, tags: bool) -> None:
    server.tags = tags
    server.files["/w.bin"] = DATA
    server.break_after = [70_000]
    unpinned = KnownFile(path="w.bin", url=f"{server.url}/w.bin")
    with pytest.raises(DownloadError):
        fetch(unpinned, tmp_path, tries=1)
    server.files["/w.bin"] = other = os.urandom(200_000)
    assert fetch(unpinned, tmp_path).read_bytes() == other


@pytest.mark.parametrize("wrong", ["size", "sha256"])
def test_another_file_is_not_taken(server: Server, tmp_path: Path, wrong: str) -> None:
    server.files["/w.bin"] = DATA
    pins = {"size": {"size": 5}, "sha256": {"sha256": "0" * 64}}[wrong]
    with pytest.raises(DownloadError, match=r"gave another file: .* it should"):
        fetch(KnownFile(path="w.bin", url=f"{server.url}/w.bin", **pins), tmp_path)  # type: ignore[arg-type]
    assert files_in(tmp_path) == set()


def test_a_file_that_is_there_but_damaged_is_said_and_kept(
    known: KnownFile, tmp_path: Path
) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "w.bin").write_bytes(b"mine")
    with pytest.raises(DownloadError, match="has 4 bytes; it should have 300000"):
        fetch(known, tmp_path)
    assert (tmp_path / "net" / "w.bin").read_bytes() == b"mine"


def test_a_refusal_is_final_and_a_tired_server_is_asked_again(
    known: KnownFile, server: Server, tmp_path: Path
) -> None:
    server.status = [403]
    with pytest.raises(DownloadError, match="answers 403 Forbidden"):
        fetch(known, tmp_path, pause=0.01)
    assert len(server.ranges) == 1
    server.status = [503, 429]
    assert fetch(known, tmp_path, pause=0.01).read_bytes() == DATA


def test_no_server_no_address_no_web(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="could not be fetched"):
        fetch(KnownFile(path="w", url="http://127.0.0.1:1/w"), tmp_path, tries=2, pause=0.01)
    with pytest.raises(DownloadError, match="has no address"):
        fetch(KnownFile(path="w"), tmp_path)
    with pytest.raises(DownloadError, match="no address of the web"):
        fetch(KnownFile(path="w", url="ftp://127.0.0.1/w"), tmp_path)
    assert "w" not in files_in(tmp_path)


def test_two_processes_do_not_write_one_file(
    known: KnownFile, server: Server, tmp_path: Path
) -> None:
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "net").mkdir()
    with (tmp_path / "net" / ".w.bin.fetching.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code = (
            "import sys; from hbr.weights import *\n"
            f"fetch(KnownFile(path='net/w.bin', url={known.url!r}), {str(tmp_path)!r})"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "another process is fetching" in done.stderr
    assert server.ranges == []


def test_a_pin_is_hexadecimal() -> None:
    KnownFile(path="w", sha256="397923af")
    with pytest.raises(ConfigError, match="sha256"):
        KnownFile(path="w", sha256="abc")


def test_no_test_sees_the_weights_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert all(tmp_path_factory.getbasetemp() in folder.parents for folder in weights_folders())


def test_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HBR_WEIGHTS", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    monkeypatch.delenv("TORCH_HOME", raising=False)
    assert weights_folder() == tmp_path / "a"
    assert [str(p.relative_to(tmp_path)) for p in weights_folders()] == [
        "a",
        "b",
        "c/hbr/weights",
        "c/torch/hub/checkpoints",
    ]
    monkeypatch.setenv("HBR_WEIGHTS", os.pathsep + str(tmp_path / "b"))
    assert weights_folder() == weights_folders()[0] == tmp_path / "b"
    monkeypatch.delenv("HBR_WEIGHTS")
    assert weights_folder() == tmp_path / "c/hbr/weights"
