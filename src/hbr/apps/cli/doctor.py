"""`hbr doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import importlib
import json
import platform
import shutil
import sys
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from hbr.apps.cli.options import AsJson
from hbr.errors import ExitCode
from hbr.version import installed_version

REQUIRED = (
    *("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "einops"),
    *("numpy", "pillow", "opencv-python-headless", "pyyaml", "tifffile"),
)
# of the packages that are imported by another name
MODULES = {"pillow": "PIL", "opencv-python-headless": "cv2", "pyyaml": "yaml"}
CODECS = {"jpeg": "jpg", "png": "zlib", "tiff": "libtiff", "webp": "webp", "avif": "avif"}
EMBEDDED = "nano"
REQUIRED_CODECS = ("jpeg", "png", "tiff")


@dataclass(frozen=True)
class Problem:
    """A missing or broken component, and how to install it."""

    what: str
    how: str
    required: bool


@dataclass
class Diagnosis:
    """The result of `hbr doctor`; `facts` holds the sections that `--json` prints."""

    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all required components are present."""
        return not any(problem.required for problem in self.problems)

    def miss(self, what: str, how: str, *, required: bool) -> None:
        """Record a problem."""
        self.problems.append(Problem(what, how, required))


def doctor(
    as_json: AsJson = False,
) -> None:
    """Show versions, devices and the embedded model, what is missing, and how to install it.

    The exit code is 1 if a required component is missing.
    """
    report = examine()
    if as_json:
        problems = [asdict(problem) for problem in report.problems]
        typer.echo(json.dumps({"ok": report.ok, **report.facts, "problems": problems}, indent=2))
    else:
        typer.echo(as_text(report))
    raise typer.Exit(ExitCode.OK if report.ok else ExitCode.NOTHING)


def examine() -> Diagnosis:
    """Check packages, codecs, devices and the embedded model."""
    from hbr.version import __version__

    report = Diagnosis()
    facts = report.facts
    facts["hbr"] = {"version": __version__, "folder": str(Path(__file__).parents[2])}
    facts["python"] = {
        "version": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
    }
    facts["packages"] = _packages(report)
    facts["extras"] = _extras(report)
    facts["codecs"] = _codecs(report)
    facts["cpu"] = _cpu()
    facts["accelerators"] = _accelerators()
    facts["memory"] = _memory()
    facts["disk"] = {"folder": str(Path.cwd()), "free": shutil.disk_usage(Path.cwd()).free}
    facts["model"] = _embedded_model(report)
    return report


def _packages(report: Diagnosis) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in REQUIRED:
        module = MODULES.get(package, package)
        found[package] = _version(package, module)
        try:
            importlib.import_module(module)
        except Exception as error:  # a broken package may raise anything
            again = f"pip install --force-reinstall {package}"
            report.miss(f"{package} does not load: {error}", again, required=True)
    return found


def _version(package: str, module: str) -> str | None:
    # another package, e.g. opencv-python, may provide the module
    return installed_version(package) or getattr(sys.modules.get(module), "__version__", None)


def _extras(report: Diagnosis) -> dict[str, str | None]:
    name = "tensorboard"
    found = _version(name, name) if find_spec(name) else None
    if found is None:
        what = f"{name} (training curves) is not installed"
        report.miss(what, 'pip install "hbr[train]"', required=False)
    return {name: found}


def _codecs(report: Diagnosis) -> dict[str, str | None]:
    try:
        from PIL import features
    except ImportError:
        return {}
    found: dict[str, str | None] = {}
    for name, feature in CODECS.items():
        available = features.check(feature)
        found[name] = (features.version(feature) or "yes") if available else None
        if not available:
            how = "pip install --force-reinstall pillow (its wheels include the codec)"
            report.miss(f"pillow has no {name}", how, required=name in REQUIRED_CODECS)
    return found


def _cpu() -> dict[str, Any]:
    from hbr.processes import cores

    facts: dict[str, Any] = {"cores": cores()}
    torch = sys.modules.get("torch")
    if torch is None:
        return facts
    facts["threads"] = torch.get_num_threads()
    facts["vectors"] = torch.backends.cpu.get_cpu_capability()
    # only recent versions of torch have this
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    facts["name"] = known.get("cpu_name")
    units = [unit for unit in ("amx_bf16", "avx512_bf16", "bf16") if known.get(unit)]
    facts["bf16"] = units if known else None
    return facts


def _accelerators() -> list[dict[str, Any]]:
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    found: list[dict[str, Any]] = []
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(i)
            found.append({"device": f"cuda:{i}", "name": gpu.name, "memory": gpu.total_memory})
    if torch.backends.mps.is_available():
        found.append({"device": "mps", "name": "Apple GPU", "memory": None})
    return found


def _memory() -> dict[str, int] | None:
    try:
        import psutil
    except ImportError:
        return None
    memory = psutil.virtual_memory()
    return {"total": memory.total, "available": memory.available}


def _embedded_model(report: Diagnosis) -> dict[str, Any]:
    """Load the embedded model as `hbr restore` does, which also finds broken packages."""
    facts: dict[str, Any] = {"name": EMBEDDED, "file": None, "intact": False}
    try:
        from hbr.models import load_model
        from hbr.weights import find_model

        facts["file"] = str(find_model(EMBEDDED))
        load_model(EMBEDDED)
    except Exception as error:  # any error here would also fail a restoration
        how = "reinstall hbr (`make setup` in a clone)"
        report.miss(f"the model {EMBEDDED} does not load: {error}", how, required=True)
    else:
        facts["intact"] = True
    return facts


def as_text(report: Diagnosis) -> str:
    """Format the report as text, one section per line."""
    lines = []
    for section, facts in report.facts.items():
        lines += [f"{section:<13} {line}" for line in _section(section, facts)]
    for problem in report.problems:
        kind = "MISSING" if problem.required else "optional"
        lines.append(f"{kind:<13} {problem.what}; {problem.how}")
    lines.append("all requirements are met" if report.ok else "a requirement is missing")
    return "\n".join(lines)


def _section(name: str, facts: Any) -> list[str]:
    if name == "accelerators":
        return [_joined(accelerator) for accelerator in facts] or ["none"]
    if name in ("packages", "extras", "codecs"):
        return [", ".join(f"{k} {v or 'missing'}" for k, v in facts.items())]
    return [_joined(facts or {})]


def _joined(facts: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_formatted(key, value)}" for key, value in facts.items())


def _formatted(key: str, value: Any) -> str:
    if value is None:
        return "unknown"
    if key in ("total", "available", "free", "memory"):
        return f"{value / 2**30:.1f} GiB"
    if isinstance(value, list):
        return " and ".join(map(str, value)) or "no"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
