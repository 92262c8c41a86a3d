"""Changes of the maths and of the papers' numbers that the tests must notice; not part of CI.

    python tests/mutations.py               # all of them
    python tests/mutations.py vsd programs  # those with a word of these in their name

Each mutation is made in a temporary copy of the project, where the tests concerned then run; they
must pass in the copy as it is. Exit code 1 if a mutation survives or no longer applies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutation:
    """One change that must not pass.

    Attributes:
        name: what it breaks.
        file: below the project.
        old, new: the text, which must be there exactly once, and what replaces it.
        tests: words for pytest: the tests that must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


STEP = ("tests/training/test_step_anew.py",)
NUMBERS = ("tests/training/test_papers_numbers.py",)
ANEW = ("tests/models/test_osediff_anew.py",)
TABLE = ("tests/evaluation/methods/test_program_table.py",)
PAPERS = ("tests/evaluation/test_papers.py",)
OTHERS = ("tests/models/test_checkpoints_of_others.py",)
BENCHMARKS = ("tests/evaluation/test_benchmark_config.py",)
FOLDING = ("tests/models/test_folding.py",)
REWRITES = "src/hbr/models/inference/folding.py"
SCHEDULE = "src/hbr/models/schedule.py"
VSD = "src/hbr/models/vsd.py"
OBJECTIVES = "src/hbr/training/objectives.py"
PERSONA = "src/hbr/recipes/osdhuman/persona.yaml"
PROGRAMS = "src/hbr/evaluation/methods/programs.yaml"

MUTATIONS = (
    Mutation(
        "the rows of the folded upsampling are turned round",
        "src/hbr/models/inference/layers.py",
        "[[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]]",
        "[[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]",
        FOLDING,
    ),
    Mutation(
        "the shift before the decoder has the wrong sign",
        REWRITES,
        "torch.linalg.solve(weight, bias)",
        "-torch.linalg.solve(weight, bias)",
        FOLDING,
    ),
    Mutation(
        "the variance is taken for the mean",
        REWRITES,
        "slice(0, len(weight) // 2)",
        "slice(len(weight) // 2, None)",
        FOLDING,
    ),
    Mutation(
        "the one step adds the noise",
        SCHEDULE,
        "return (z_l.to(dtype) - (1.0 - alpha_bar) ** 0.5",
        "return (z_l.to(dtype) + (1.0 - alpha_bar) ** 0.5",
        STEP,
    ),
    Mutation(
        "the one step is not divided",
        SCHEDULE,
        "* epsilon.to(dtype)) / alpha_bar**0.5",
        "* epsilon.to(dtype))",
        STEP,
    ),
    Mutation(
        "the noise schedule is linear",
        SCHEDULE,
        "(start, end, schedule.steps, dtype=torch.float64) ** 2",
        "(start**2, end**2, schedule.steps, dtype=torch.float64)",
        STEP,
    ),
    Mutation(
        "the latent is not scaled",
        "src/hbr/models/networks.py",
        "posterior.mode()) * config.scaling_factor",
        "posterior.mode())",
        STEP,
    ),
    Mutation(
        "vsd: no guidance",
        VSD,
        "return epsilon_u + scale * (conditional",
        "return epsilon_u + (conditional",
        STEP,
    ),
    Mutation(
        "vsd: the direction is turned",
        VSD,
        "(predicted_x0(z_t, epsilon, alpha_bar) - x0_of_prior) / size",
        "(x0_of_prior - predicted_x0(z_t, epsilon, alpha_bar)) / size",
        STEP,
    ),
    Mutation(
        "vsd: its size is over the whole batch",
        VSD,
        "size = (z - x0_of_prior).abs().mean(dim=(1, 2, 3), keepdim=True)",
        "size = (z - x0_of_prior).abs().mean()",
        STEP,
    ),
    Mutation(
        "vsd: the weight is ignored",
        OBJECTIVES,
        'terms["vsd"] = config.vsd.weight * vsd',
        'terms["vsd"] = vsd',
        STEP,
    ),
    Mutation(
        "vsd: the generator stands for the regularizer",
        OBJECTIVES,
        "finetuned=_network(model, regularizer_adapters(model.unet), p),",
        "finetuned=_network(model, generator_adapters(model.unet), p),",
        STEP,
    ),
    Mutation(
        "vsd: the prior has the generator's adapters",
        OBJECTIVES,
        "guided(_network(model, (), p), _network(model, (), away), config.guidance)",
        "guided(_network(model, generator_adapters(model.unet), p), _network(model, (), away), "
        "config.guidance)",
        STEP,
    ),
    Mutation(
        "vsd: the prompt of the prior is not the negative one",
        OBJECTIVES,
        "away = torch.zeros_like(p) if negative is None else",
        "away = torch.zeros_like(p) if True else",
        STEP,
    ),
    Mutation(
        "vsd: t is drawn from the whole schedule",
        OBJECTIVES,
        "t = draws.timesteps(config.timesteps, z_h)",
        "t = draws.timesteps((0, model.config.schedule.steps), z_h)",
        STEP,
    ),
    Mutation(
        "vsd: the generator is not active again",
        OBJECTIVES,
        "    lora.activate(model.unet, generator_adapters(model.unet))\n    return vsd_loss",
        "    return vsd_loss",
        STEP,
    ),
    Mutation(
        "the regularizer is trained as the prior",
        OBJECTIVES,
        "    network = _network(model, regularizer_adapters(model.unet), p)",
        "    network = _network(model, generator_adapters(model.unet), p)",
        STEP,
    ),
    Mutation(
        "the regularizer's alpha is the generator's",
        "src/hbr/training/adapters.py",
        "lora.inject(unet, regularizer, objective.vsd.lora)",
        "lora.inject(unet, regularizer, objective.lora)",
        STEP,
    ),
    Mutation(
        "quant_conv has no adapter",
        "src/hbr/models/lora.py",
        'if n.startswith("encoder.") or n == "quant_conv")',
        'if n.startswith("encoder."))',
        ("tests/models/test_lora.py",),
    ),
    Mutation(
        "osediff: alpha is the rank",
        "src/hbr/models/importing/osediff.py",
        "ALPHA = 8.0",
        "ALPHA = 4.0",
        ANEW,
    ),
    Mutation("recipe: learning rate", PERSONA, "lr: 5.0e-5", "lr: 1.0e-4", NUMBERS),
    Mutation("recipe: LPIPS", PERSONA, "lpips: 2.0", "lpips: 1.0", NUMBERS),
    Mutation("recipe: guidance", PERSONA, "guidance: 7.5", "guidance: 3.5", NUMBERS),
    Mutation("recipe: steps", PERSONA, "steps: 35000", "steps: 30000", NUMBERS),
    Mutation(
        "recipe: alpha of the regularizer's LoRA",
        PERSONA,
        "lora: {rank: 4, alpha: 8}\nloss",
        "lora: {rank: 4, alpha: 4}\nloss",
        NUMBERS,
    ),
    Mutation(
        "degradation: noise of the second stage",
        "src/hbr/degradation/named_recipes.py",
        "noise_sigma=(1.0, 25.0)",
        "noise_sigma=(1.0, 30.0)",
        NUMBERS,
    ),
    Mutation(
        "programs: the word None is SeeSR's prompt",
        PROGRAMS,
        'dape: preset/models/DAPE.pth, prompt: ""}',
        'dape: preset/models/DAPE.pth, prompt: "None"}',
        TABLE,
    ),
    Mutation(
        "programs: an option that DiffBIR no longer has",
        PROGRAMS,
        '--task, "{task}", --upscale',
        '--task, "{task}", --sr_scale',
        TABLE,
    ),
    Mutation(
        "programs: SUPIR loads LLaVA",
        PROGRAMS,
        "captions: --no_llava}",
        'captions: ""}',
        TABLE,
    ),
    Mutation(
        "programs: ResShift of the journal",
        PROGRAMS,
        "values: {version: v1,",
        "values: {version: v3,",
        TABLE,
    ),
    Mutation(
        "retraining: the last line has no end",
        "src/hbr/evaluation/methods/retraining.py",
        'return "".join(f"{photo.absolute()}\\n" for photo in photos)',
        'return "\\n".join(str(photo.absolute()) for photo in photos)',
        ("tests/evaluation/methods/test_retraining.py", "-k", "published"),
    ),
    Mutation(
        "retraining: a checkpoint that is cut short is resumed from",
        "src/hbr/evaluation/methods/retraining.py",
        "step.isdigit() and all(map(zipfile.is_zipfile, (path, _average(path))))",
        "step.isdigit()",
        ("tests/evaluation/methods/test_retraining.py", "-k", "whole"),
    ),
    Mutation(
        "benchmark: the scale of a given method is its own",
        "src/hbr/evaluation/benchmark_config.py",
        '| {key: value for key, value in values.items() if key != "given"}',
        "",
        BENCHMARKS,
    ),
    Mutation(
        "papers: TOPIQ without reference is the one with",
        "src/hbr/metrics/table.py",
        '"TOPIQ-NR": ("topiq",),',
        '"TOPIQ-NR": ("topiq-fr",),',
        PAPERS,
    ),
    Mutation(
        "papers: a number of a table",
        "src/hbr/evaluation/more_paper_tables.json",
        '"LPIPS": 0.2507',
        '"LPIPS": 0.2505',
        PAPERS,
    ),
    Mutation(
        "import: HAODiff's LoRA at T = 999",
        "src/hbr/models/importing/recognition.py",
        "if (path.parent / _HAODIFF_ENCODER).is_file():",
        "if False:",
        OTHERS,
    ),
    Mutation(
        "import: the image of a RAM without attn_mask is one window",
        "src/hbr/models/importing/ram.py",
        "windows = 2 ** (len(depths) - 1) if mask is None",
        "windows = 1 if mask is None",
        OTHERS,
    ),
    Mutation(
        "import: plain weights come before averaged ones",
        "src/hbr/models/importing/reading.py",
        '"state_dict", "params_ema", "params"',
        '"state_dict", "params", "params_ema"',
        OTHERS,
    ),
    Mutation(
        "PSNR and SSIM on another Y",
        "src/hbr/metrics/planes.py",
        "_LUMA = (65.481, 128.553, 24.966)",
        "_LUMA = (65.738, 129.057, 25.064)",
        ("tests/metrics/test_fidelity.py",),
    ),
    Mutation(
        "HFIE sees an antialiased image",
        "src/hbr/models/hfie.py",
        'mode="bilinear", align_corners=False)',
        'mode="bilinear", align_corners=False, antialias=True)',
        ("tests/models/test_prompts.py",),
    ),
)


def passes(folder: Path, tests: Sequence[str]) -> bool:
    """Whether the tests pass in the copy."""
    env = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    words = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests)
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest {' '.join(tests)} did not run:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def apply(folder: Path, mutation: Mutation) -> bool:
    """Make the change; false if its text is not there exactly once."""
    file = folder / mutation.file
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if text.count(mutation.old) != 1:
        return False
    file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    return True


def verdict(folder: Path, mutation: Mutation) -> str:
    """What became of one mutation."""
    if not apply(folder, mutation):
        return f"does not apply to {mutation.file}"
    try:
        return "SURVIVED" if passes(folder, mutation.tests) else "killed"
    finally:
        shutil.copy(ROOT / mutation.file, folder / mutation.file)


def main(words: Sequence[str]) -> int:
    """Run the mutations whose name has one of the words, or all."""
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / ROOT.name
        skipped = shutil.ignore_patterns(".*", "__pycache__", "runs")
        shutil.copytree(ROOT, folder, ignore=skipped, symlinks=True)
        (folder.parent / "shared").symlink_to(ROOT.parent / "shared")
        concerned = dict.fromkeys(mutation.tests for mutation in chosen)
        failing = [tests for tests in concerned if not passes(folder, tests)]
        for tests in failing:
            print(f"fails without any mutation: {' '.join(tests)}", flush=True)
        left = 0
        for mutation in chosen:
            if mutation.tests in failing:
                left += 1
                continue
            began = time.monotonic()
            came = verdict(folder, mutation)
            left += came != "killed"
            print(f"{came:9} {time.monotonic() - began:5.0f} s  {mutation.name}", flush=True)
    print(f"{len(chosen) - left} of {len(chosen)} killed")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
