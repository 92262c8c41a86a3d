"""Every kind of method as plain data; `hbr.evaluation.methods.build_method` makes it run.

Sizes, for all kinds: a result is `scale` times as large as its input. A network of a fixed factor
(×4, say) reaches that in one of two ways, which `input` chooses:

* "full": the input goes in as it is; what comes out is resized to the wanted size (antialiased
  bicubic). Nothing of the input is thrown away. For LQ that is as large as HQ, with `scale` 1, the
  network sees the upsized blur that it was not trained for.
* "small": the input is first resized to the wanted size over the factor (antialiased bicubic), so
  that what comes out needs no resizing. This is what a ×4 network expects, and it is slower by
  none, but LQ that held detail above a quarter of the resolution loses it.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hbr.config import check, check_least
from hbr.models.protocol import Sampling
from hbr.restoration.settings import RestoreSettings, TileChoice, check_scale

Feed = Literal["full", "small"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class HbrConfig:
    """A model of hbr, through `hbr.Restorer`.

    Attributes:
        model: a known name (`hbr models list`) or a safetensors file.
        scale: size of the result over the input's, 0.25 to 8.
        tile: edge of the tiles in pixels, "auto", or 0 for the whole photo.
        color: where the colours come from, as in `RestoreSettings`.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        dtype: precision.
        seed: for models that draw random numbers.
        prompt: a text, for models that take one; empty is none.
        maps: "none" leaves pose and attention blank; None is as the model has it.
        sampling: how a model of many steps samples; None is its default.
    """

    model: str = "nano"
    scale: float = 1.0
    tile: TileChoice = "auto"
    color: Literal["auto", "wavelet", "adain", "none"] = "wavelet"
    device: str = "auto"
    dtype: Dtype = "auto"
    seed: int = 0
    prompt: str | None = None
    maps: Literal["none"] | None = None
    sampling: Sampling | None = None
    kind: Literal["hbr"] = "hbr"

    def __post_init__(self) -> None:
        _ = self.settings  # it checks itself
        check_least(self, 0, "seed")

    @property
    def settings(self) -> RestoreSettings:
        """How each photo is restored."""
        return RestoreSettings(
            scale=self.scale,
            tile=self.tile,
            color=self.color,
            seed=self.seed,
            prompt=self.prompt or None,
            pose=self.maps or "auto",
            attention=self.maps or "auto",
            sampling=self.sampling,
        )


@dataclass(frozen=True, kw_only=True)
class SpandrelConfig:
    """A model file that spandrel reads (Real-ESRGAN, BSRGAN, SwinIR …); the extra `spandrel`.

    Attributes:
        file: .pth, .pt, .ckpt or .safetensors; nothing in it is run.
        input: how a network that enlarges is fed; see the head of this module.
        scale: size of the result over the input's.
        tile: edge of the tiles in pixels of what the network sees, "auto", or 0 for the whole.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        dtype: precision; "auto" is float32.
        sha256: of the file, in hexadecimal; another one is an error. "" pins none.
    """

    file: Path
    input: Feed = "full"
    scale: float = 1.0
    tile: TileChoice = "auto"
    device: str = "auto"
    dtype: Dtype = "auto"
    sha256: str = ""
    kind: Literal["spandrel"] = "spandrel"

    def __post_init__(self) -> None:
        RestoreSettings(scale=self.scale, tile=self.tile)  # it checks itself
        ok = not self.sha256 or (
            len(self.sha256) == 64 and not set(self.sha256) - set("0123456789abcdef")
        )
        check(ok, "sha256", self.sha256, "64 small hexadecimal digits, or empty")


@dataclass(frozen=True, kw_only=True)
class ProgramSpec:
    """What there is to know of an external program; `programs.yaml` has those of the papers.

    Placeholders in `command`: {python}, {repo}, {input} (a folder of PNG files), {output} (a folder
    that exists and is empty), {upscale} (size of the result over that of what is fed), {seed}, and
    each name in `values`.

    Attributes:
        command: the words of the command line, which no shell looks at.
        outputs: where results land, as patterns below the folder of the run, in which the output
            folder is called `output`; {name} is the input's name without suffix, `*` matches
            anything, `.*` at the end any suffix of a photo. The first that finds a file counts.
        workdir: where it runs: "repo", or "run", the folder of the run, for programs that write
            below the folder that they are in.
        values: further placeholders and their defaults; an empty one must be given. Those above but
            {python} may be used in them.
        optional: names in `values` that may stay empty; a word of `command` that is nothing but
            such a placeholder is then left out.
        needs: files and folders, placeholders allowed, that must be there before it starts;
            relative ones are below the repository.
        factor: the program's fixed scale factor; None if {upscale} sets it.
        name: as in the tables.
        paper: where it was published.
        url: its home.
        commit: of the repository that `command` was checked against.
        licence: of the code, and of the weights where it differs.
        install: what has to be installed and downloaded.
        notes: what else one should know before comparing with it.
    """

    command: tuple[str, ...]
    outputs: tuple[str, ...] = ("output/{name}.png",)
    workdir: Literal["repo", "run"] = "repo"
    values: dict[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    factor: int | None = None
    name: str = ""
    paper: str = ""
    url: str = ""
    commit: str = ""
    licence: str = "not known"
    install: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        check(bool(self.command), "command", self.command, "the words of a command line")
        check(bool(self.outputs), "outputs", self.outputs, "one pattern or more")
        _check_values(self.values)
        for name in self.optional:
            check(name in self.values, "optional", name, f"one of {', '.join(self.values)}")
        known = {*OWN_PLACEHOLDERS, *self.values}
        for word in (*self.command, *self.needs):
            _check_placeholders(word, known)
        for pattern in self.outputs:
            _check_placeholders(pattern, {"name"})
            ok = "{name}" in pattern and not Path(pattern).is_absolute() and ".." not in pattern
            check(ok, "outputs", pattern, "a path below the folder of the run, with {name} in it")
        joined = " ".join(self.command)
        check("{input}" in joined, "command", joined, "a command with {input} in it")
        ok = "{output}" in joined or self.workdir == "run"
        check(ok, "command", joined, "a command with {output} in it, unless workdir is run")
        adjustable = "{upscale}" in joined
        check(
            adjustable == (self.factor is None),
            "factor",
            self.factor,
            "null where the command has {upscale}, else a whole number",
        )
        check(self.factor is None or 1 <= self.factor <= 16, "factor", self.factor, "1 to 16")


OWN_PLACEHOLDERS = ("python", "repo", "input", "output", "upscale", "seed")


@dataclass(frozen=True, kw_only=True)
class ProgramConfig:
    """A program outside hbr, in the user's own environment.

    Attributes:
        program: a known name (`hbr methods list`), a YAML file with the fields of `ProgramSpec`, or
            these fields themselves.
        python: its interpreter: a path or command, the folder of a virtual or conda environment, or
            "conda:NAME".
        repo: the folder that it was cloned into.
        values: the program's own placeholders.
        args: words put behind the command.
        env: additional environment variables.
        input: how a program of a fixed factor is fed; see the head of this module.
        scale: size of the result over the input's.
        upscale: the value of {upscale}; null is `scale`. A program is then fed as one of this
            fixed factor.
        resize: take results of another size than expected too, if the proportions are right to
            2 %, and resize them (antialiased bicubic); otherwise they are failures.
        seed: for programs that take one.
        start_seconds: how long it may take before and after its images.
        image_seconds: how long it may take for each of them; past the sum, it is killed.
        quiet_seconds: how long it may write nothing, no file and no line; then it is killed.
        attempts: how often it is started at most, while some results are missing and the last
            start brought some; each start gets the missing inputs only.
        at_once: how many inputs a start gets at most; 0 is all of them.
    """

    program: ProgramSpec | str
    python: str = "python3"
    repo: Path = Path()
    values: dict[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    input: Feed = "full"
    scale: float = 1.0
    upscale: float | None = None
    resize: bool = False
    seed: int = 0
    start_seconds: float = 900.0
    image_seconds: float = 120.0
    quiet_seconds: float = 1800.0
    attempts: int = 2
    at_once: int = 0
    kind: Literal["program"] = "program"

    def __post_init__(self) -> None:
        check(bool(self.python), "python", self.python, "a path, a command or conda:NAME")
        _check_values(self.values)
        check_scale(self.scale)
        ok = self.upscale is None or 0.25 <= self.upscale <= 16
        check(ok, "upscale", self.upscale, "0.25 to 16, or null")
        check_least(self, 0, "seed")
        check(self.start_seconds > 0, "start_seconds", self.start_seconds, "above 0")
        check(self.image_seconds > 0, "image_seconds", self.image_seconds, "above 0")
        check(self.quiet_seconds > 0, "quiet_seconds", self.quiet_seconds, "above 0")
        check_least(self, 1, "attempts")
        check_least(self, 0, "at_once")


@dataclass(frozen=True, kw_only=True)
class ResultsFolderConfig:
    """Existing results.

    Attributes:
        folder: where they are.
        outputs: where in it each result is, as patterns with {stem}, the input's stem, and `*`;
            the first that finds a file counts.
        scale: size of the result over the input's.
        resize: as in `ProgramConfig`.
    """

    folder: Path
    outputs: tuple[str, ...] = ("{stem}.*", "{stem}_out.*", "{stem}_SwinIR.*")
    scale: float = 1.0
    resize: bool = False
    kind: Literal["folder"] = "folder"

    def __post_init__(self) -> None:
        check_scale(self.scale)
        check(bool(self.outputs), "outputs", self.outputs, "one pattern or more")
        for pattern in self.outputs:
            _check_placeholders(pattern, {"stem"})
            ok = "{stem}" in pattern and not Path(pattern).is_absolute()
            check(ok, "outputs", pattern, "a path below the folder, with {stem} in it")


@dataclass(frozen=True)
class BaselineConfig:
    """What needs no model, to see what a method is worth.

    Attributes:
        baseline: "input" changes nothing; "bicubic" only resizes by `scale` (antialiased; at 1 it
            is the input); "nlm" takes non-local means, "median" a 3×3 median, then resizes.
        scale: size of the result over the input's; 1 for "input".
        strength: of "nlm": the filter's h in levels of 255.
    """

    baseline: Literal["input", "bicubic", "nlm", "median"]
    scale: float = 1.0
    strength: float = 10.0
    kind: Literal["baseline"] = "baseline"

    def __post_init__(self) -> None:
        check_scale(self.scale)
        ok = self.baseline != "input" or self.scale == 1
        check(ok, "scale", self.scale, "1 for the baseline input; bicubic resizes")
        check(0 < self.strength <= 100, "strength", self.strength, "above 0, at most 100")


MethodConfig = HbrConfig | SpandrelConfig | ProgramConfig | ResultsFolderConfig | BaselineConfig


def _check_values(values: dict[str, str]) -> None:
    for text in values.values():
        _check_placeholders(text, {*OWN_PLACEHOLDERS} - {"python"})


def _check_placeholders(text: str, known: set[str]) -> None:
    expected = "text with {" + "}, {".join(sorted(known)) + "} only; a brace itself is {{"
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError:
        parts = [("", "", "", None)]
    for _, name, spec, conversion in parts:
        ok = name is None or (name in known and not spec and not conversion)
        check(ok, "placeholder", text, expected)
