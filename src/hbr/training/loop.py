"""The training loop: pairs → loss → AdamW → average, checkpoints, validation.

Shapes: b batch, s edge of the crop. Images are in [0, 1].
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from hbr.config import to_dict
from hbr.image import Photo, write_photo
from hbr.models.checkpoint import save_checkpoint
from hbr.models.onestep import OneStepRestorer
from hbr.training.adapters import add_adapters, released, write_generator
from hbr.training.config import OptimConfig, RestorationConfig, TrainConfig
from hbr.training.curves import Curves
from hbr.training.data import (
    STOP_SIGNALS,
    Pair,
    Skipped,
    TrainingPairs,
    check_validation,
    prepared,
    seeded,
    validation_pairs,
)
from hbr.training.draws import Draws
from hbr.training.losses import load_networks
from hbr.training.memory import checkpoint_blocks
from hbr.training.objectives import build_objective
from hbr.training.start import (
    begin_at_identity,
    embed_negative,
    freeze,
    load_initial_weights,
)
from hbr.training.state import TrainState


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """The rate of this step (from 0): linear warm-up, held, cosine to 0 over the last `decay`."""
    rate = config.lr
    if step < config.warmup:
        rate *= (step + 1) / config.warmup
    if config.decay and step >= steps - config.decay:
        rate *= 0.5 * (1 + math.cos(math.pi * (step - (steps - config.decay)) / config.decay))
    return rate


class Trainer:
    """A training that can be stopped and gone on with at any moment.

    Args:
        config: the training.
        device: where it runs.
        report: called with one line of progress at a time.
    """

    def __init__(
        self, config: TrainConfig, device: str = "cpu", report: Callable[[str], None] = print
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.report = report
        check_validation(config.validation)
        networks = load_networks(config, self.device)
        self.state_file = config.out / "state.safetensors"
        torch.manual_seed(config.seed)
        model = OneStepRestorer(config.model)
        adapted = isinstance(config.objective, RestorationConfig) and config.objective.lora
        if config.init is not None and (adapted or not self.state_file.exists()):
            load_initial_weights(model, config, report)
        elif config.start == "identity":
            begin_at_identity(model, config)
        negative = embed_negative(model, config)
        self.objective = build_objective(config, networks, negative)
        add_adapters(model, config)
        if config.memory.checkpointing:
            checkpoint_blocks(model)
        untrained = {name for name, _ in model.named_children()} - {*self.objective.parts}
        for name in (*config.freeze, *sorted(untrained)):
            freeze(model, name)
        # on CPUs and on tensor cores convolutions are fastest with the channels last
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.state = TrainState(self.model, config)
        if self.state_file.exists():
            self.state.load(self.state_file)
            report(f"going on at step {self.state.step} of {config.steps}")

    def run(self) -> Path:
        """Train to the end; returns the model file.

        Raises:
            KeyboardInterrupt: it was stopped; the state is saved.
        """
        config, state = self.config, self.state
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / "config.json").write_text(json.dumps(to_dict(config), indent=1))
        pairs = TrainingPairs(config, state.step)
        skipped = Skipped(pairs.photos, config.data.errors, state.skipped)
        with Curves(config.out, state.step) as curves, _stoppable() as stopped:
            started, first = time.monotonic(), state.step
            for pair in prepared(pairs):
                for line in skipped.add(pair):
                    self.report(line)
                terms = self._step(self._placed(pair))
                if state.step % 20 == 0 or state.step == config.steps:
                    numbers = {f"loss/{k}": v for k, v in terms.items()}
                    curves.add(state.step, {**numbers, "data/skipped": len(skipped.lines)})
                if state.step % 100 == 0 or state.step == first + 5:
                    pace = (time.monotonic() - started) / (state.step - first)
                    self.report(self._line(terms, pace))
                last = state.step == config.steps
                # before the state is saved: what a kill takes away is then done again
                if last or state.step % config.validation.every == 0:
                    curves.add(state.step, self._validate())
                if stopped() or last or state.step % config.save_every == 0:
                    self._save()
                if stopped():
                    raise KeyboardInterrupt
        if skipped.lines:
            self.report(f"{len(skipped.lines)} of {pairs.photos} photos could not be read")
        return self.config.out / "model.safetensors"

    def _placed(self, pair: Pair) -> Pair:
        layout = torch.channels_last
        hq, lq = (x.to(self.device).contiguous(memory_format=layout) for x in (pair.hq, pair.lq))
        return Pair(hq, lq)

    def _step(self, pair: Pair) -> dict[str, float]:
        config, state = self.config, self.state
        self.model.train()
        rate = learning_rate(state.step, config.steps, config.optim)
        state.set_learning_rate(rate)
        pixel_loss = config.phase_at(state.step).loss or config.loss
        # the data have (seed, step) to themselves
        draws = Draws(seeded(config.seed, state.step, 1))
        with self._autocast():
            losses = self.objective.losses(self.model, pair, pixel_loss, draws)
        out = self._minimise(losses.terms)
        if losses.then is not None:
            with self._autocast():
                following = losses.then()
            out |= {name: v for name, v in self._minimise(following).items() if name != "norm"}
        state.step += 1
        state.update_average()
        return {**out, "lr": rate}

    def _minimise(self, terms: dict[str, Tensor]) -> dict[str, float]:
        """One update by the sum of these terms, if its gradient is finite."""
        config, state = self.config, self.state
        state.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        norm = torch.nn.utils.clip_grad_norm_(list(state.trained.values()), config.optim.clip)
        if not math.isfinite(float(norm)):
            self.report(f"step {state.step}: the gradient is {float(norm)}; this batch is left out")
        else:
            state.optimizer.step()
        return {**{name: float(term.detach()) for name, term in terms.items()}, "norm": float(norm)}

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _save(self) -> None:
        card = {**self.config.card, "steps": str(self.state.step)}
        with self._averaged():
            save_checkpoint(
                self.config.out / "model.safetensors",
                self.config.model,
                released(self.model),
                dtype=getattr(torch, self.config.weights),
                card=card,
            )
            write_generator(self.config.out / "lora.safetensors", self.model, self.config, card)
        # last, so that no state speaks of a model that was never written
        self.state.save(self.state_file)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in place of the trained ones, for a while."""
        kept = {n: p.detach().clone() for n, p in self.state.trained.items()}
        self.model.load_state_dict(self.state.average, strict=False)
        try:
            yield
        finally:
            self.model.load_state_dict(kept, strict=False)

    def _line(self, terms: dict[str, float], pace: float) -> str:
        left = (self.config.steps - self.state.step) * pace / 60
        values = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        where = f"step {self.state.step}/{self.config.steps}"
        return f"{where}  {values}  {pace:.2f} s/step  {left:.0f} min left"

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """What the objective measures of the averaged weights, means over the photos; pictures."""
        config = self.config.validation
        measured: dict[str, list[Tensor]] = defaultdict(list)
        pictures: list[Tensor] = []
        self.model.eval()
        with self._averaged():
            for i, pair in enumerate(validation_pairs(config)):
                with self._autocast():
                    seen = self.objective.validate(self.model, self._placed(pair), i)
                for name, values in seen.numbers.items():
                    measured[name].append(values)
                if len(pictures) < config.pictures:
                    pictures.append(torch.cat(seen.images, dim=-1))
        out = {name: float(torch.cat(values).mean()) for name, values in measured.items()}
        out = {f"validation/{name}": value for name, value in out.items()}
        if pictures:
            folder = self.config.out / "pictures"
            folder.mkdir(exist_ok=True)
            photo = Photo.from_tensor(torch.cat(pictures, dim=-2).cpu())
            write_photo(photo, folder / f"{self.state.step:06d}.png")
        line = "  ".join(f"{name} {value:.4f}" for name, value in out.items())
        self.report(f"step {self.state.step}: {line}")
        return out


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM ask for a stop after the step under way."""
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)

    heeded = (s for s in STOP_SIGNALS if signal.getsignal(s) is not signal.SIG_IGN)
    before = {s: signal.signal(s, ask) for s in heeded}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
