"""`hbr metrics show | fetch` and `hbr fetch`: real commands, a server on this machine."""

import functools
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Hbr = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and its address."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights are looked for and put below this folder only."""
    monkeypatch.setenv("HBR_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def with_addresses(site: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `hbr` with every address of the catalogue on this machine's server, without packages."""
    code = (
        "import dataclasses, sys\n"
        "from hbr.weights import entries\n"
        "def local(file):\n"
        "    urls = [s for s in file.all_sources if isinstance(s, str)]\n"
        f"    url = {site!r} + '/' + urls[0].rsplit('/', 1)[1] if urls else None\n"
        "    return dataclasses.replace(file, url=url, sources=())\n"
        "for name, entry in entries().items():\n"
        "    also = tuple(tuple(map(local, files)) for files in entry.also)\n"
        "    files = tuple(map(local, entry.files))\n"
        "    entries()[name] = dataclasses.replace(entry, files=files, also=also)\n"
        "from hbr.apps.cli.main import main\n"
        f"sys.argv[1:] = {list(arguments)}\n"
        "main()\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_fetched_weights_of_a_metric_are_found(
    site: tuple[Path, str], places: Path, call_hbr: Hbr
) -> None:
    folder, address = site
    for name in ("brisque_model_live.yml", "brisque_range_live.yml"):
        (folder / name).write_text(name)
    missing = call_hbr("metrics", "show", "brisque")
    assert "not on this machine; `hbr fetch brisque` gets them" in missing.stdout
    done = with_addresses(address, "fetch", "brisque")
    assert (done.returncode, done.stdout.strip()) == (0, str(places)), done.stderr
    assert "Apache-2.0" in done.stderr
    assert (places / "brisque_range_live.yml").read_text() == "brisque_range_live.yml"
    shown = json.loads(call_hbr("metrics", "show", "brisque", "--json").stdout)
    assert shown["weights"][0]["file"] == str(places)
    again = with_addresses("http://127.0.0.1:1", "metrics", "fetch", "brisque")
    assert again.returncode == 0
    assert "already present" in again.stderr


def test_fetched_weights_of_a_model_come_with_the_next_command(
    site: tuple[Path, str], places: Path
) -> None:
    folder, address = site
    (folder / "osediff.pkl").write_bytes(b"weights")
    done = with_addresses(address, "models", "fetch", "osediff-lora")
    assert done.returncode == 0, done.stderr
    assert (places / "osediff-lora" / "osediff.pkl").read_bytes() == b"weights"
    assert "next: hbr models import" in done.stderr


def test_what_came_is_another_file(site: tuple[Path, str], places: Path) -> None:
    folder, address = site
    (folder / "ram_swin_large_14m.pth").write_bytes(b"no weights")
    done = with_addresses(address, "models", "fetch", "ram-swin-l", "--into", str(places))
    assert done.returncode == 4
    assert "gave another file" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2  # what it is, and what is wrong
    assert not list(places.glob("*.pth"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("metrics", "fetch", "psnr"), "needs no weights"),
        (("metrics", "fetch", "lpisp"), "did you mean"),
        (("metrics", "show", "nothing-like-it"), "no metric is called"),
        (("metrics", "fetch", "torch-alexnet"), "get checkpoints/alexnet-owt-7be5be79.pth"),
        (("fetch", "torch-vgg16"), "get checkpoints/vgg16-397923af.pth"),
        (
            ("models", "fetch", "nanno"),
            "no metric named 'nanno'; did you mean nano",
        ),
        (("models", "fetch", "nano"), "comes with hbr"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(
    arguments: tuple[str, ...], told: str, places: Path, call_hbr: Hbr
) -> None:
    done = call_hbr(*arguments)
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert (done.returncode == 0) == (told in ("needs no weights", "comes with hbr"))


def test_every_weight_of_every_metric_is_in_the_catalogue() -> None:
    from hbr.metrics import METRICS
    from hbr.weights import entries

    needed = {name for info in METRICS.values() for name in info.weights}
    assert needed == {entry.name for entry in entries().values() if entry.kind == "metric"}
    for known in entries().values():
        assert known.source
        assert known.licence
        assert known.files
        assert set(known.assembled_from) <= set(entries())
        for file in (f for files in (known.files, *known.also) for f in files):
            urls = [source for source in file.all_sources if isinstance(source, str)]
            assert all(url.startswith("https://") for url in urls)
            if len(urls) < len(file.all_sources):  # what is made of a package is pinned
                assert file.sha256 is not None
                assert len(file.sha256) == 64


def test_decoders_are_fetched_in_the_layout_of_their_publishers(
    site: tuple[Path, str], places: Path
) -> None:
    import toy_decoders
    from hbr.models.decoder_files import read_decoder

    folder, address = site
    tiny, light = toy_decoders.taesd(), toy_decoders.light()
    # TAESD's own file is not there: what diffusers made of it comes in its place
    toy_decoders.write_diffusers(folder / "diffusion_pytorch_model.safetensors", tiny)
    toy_decoders.write_light(folder / "sd21_lwdecoder.pth", light, epoch=3)
    done = with_addresses(address, "fetch", "taesd", "sd21-lwdecoder")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(places / "taesd"), str(places / "sd21-lwdecoder")]
    assert "taesd: MIT" in done.stderr
    assert "sd21-lwdecoder: Apache-2.0" in done.stderr
    for file, kind in (
        (places / "taesd" / "diffusion_pytorch_model.safetensors", "tiny"),
        (places / "sd21-lwdecoder" / "sd21_lwdecoder.pth", "kl"),
    ):
        assert read_decoder(file).config.kind == kind
    again = with_addresses("http://127.0.0.1:1", "fetch", "taesd")
    assert (again.returncode, "already present" in again.stderr) == (0, True)


def test_weights_without_an_address_cannot_be_fetched_to_another_place(
    tmp_path: Path, places: Path, monkeypatch: pytest.MonkeyPatch, call_hbr: Hbr
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    kept = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"here")
    assert "already present" in call_hbr("fetch", "torch-vgg16").stderr
    done = call_hbr("fetch", "torch-vgg16", "--into", str(places))
    assert done.returncode == 4
    assert "torch-vgg16 has no address of its own; get checkpoints/vgg16-397923af" in done.stderr
