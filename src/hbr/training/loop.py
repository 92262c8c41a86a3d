"""The training loop: pairs → loss → AdamW → average, checkpoints, validation.

Shapes: b batch, s edge of the crop. Images are in [0, 1].
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hbr.config import to_dict
from hbr.files import write_text
from hbr.models.checkpoint import save_checkpoint
from hbr.models.kinds import build_model
from hbr.processes import StopSignals
from hbr.training.adapters import merged_state_dict, write_generator
from hbr.training.config import OptimConfig, RestorationConfig, TrainConfig
from hbr.training.crops import Skipped
from hbr.training.curves import Curves
from hbr.training.data import (
    Pair,
    TrainingPairs,
    check_validation,
    prepared,
    seeded,
    validation_pairs,
)
from hbr.training.losses import load_networks
from hbr.training.measuring import ValidatedPhoto, ValidationResult, summary, write_picture
from hbr.training.objectives import build_objective
from hbr.training.processes import Processes
from hbr.training.random_state import RandomState
from hbr.training.start import (
    begin_at_identity,
    embed_negative,
    load_initial_weights,
    prepare,
)
from hbr.training.state import TrainingError, TrainState


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

    Under `torchrun` or `accelerate launch`, each process makes one, and they train together.

    Args:
        config: the training.
        device: where it runs; the kind alone if there are several processes.
        report: called with one line of progress at a time, in the first process.
    """

    def __init__(
        self, config: TrainConfig, device: str = "cpu", report: Callable[[str], None] = print
    ) -> None:
        self.config = config
        self.processes = Processes(device, config)
        self.device = self.processes.device
        self.report = report if self.processes.first else _say_nothing
        self.validation_photos = check_validation(config.validation)
        networks = load_networks(config, self.device)
        self.state_file = config.out / "state.safetensors"
        torch.manual_seed(config.seed)
        model = build_model(config.model)
        adapted = isinstance(config.objective, RestorationConfig) and config.objective.lora
        if config.init is not None and (adapted or not self.state_file.exists()):
            load_initial_weights(model, config, self.report)
        elif config.start == "identity":
            begin_at_identity(model, config)
        negative = embed_negative(model, config)
        self.objective = build_objective(config, networks, negative)
        prepare(model, config, self.objective.parts)
        # on CPUs and on tensor cores convolutions are fastest with the channels last
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.processes.equal_weights(p for p in self.model.parameters() if p.requires_grad)
        self.state = TrainState(self.model, config)
        if self.state_file.exists():
            self.state.load(self.state_file)
            self.report(f"going on at step {self.state.step} of {config.steps}")
        self.processes.agree({"recipe": to_dict(config), "number of steps made": self.state.step})

    def run(self) -> Path:
        """Train to the end; returns the model file.

        Raises:
            KeyboardInterrupt: it was stopped; the state is saved.
            TrainingError: it cannot go on; what was last saved is whole.
            WeightsError, OSError: a file cannot be written; what was last saved is whole.
        """
        config, state, processes = self.config, self.state, self.processes
        processes.begin()
        pairs = TrainingPairs(config, state.step, processes.index, processes.count)
        for warning in filter(None, (source.warning for source in pairs.sources)):
            self.report(warning)
        skipped = Skipped(pairs.photos, config.data.errors, state.skipped)
        with self._curves() as curves, StopSignals(raises=False) as signals:
            started, first = time.monotonic(), state.step
            for pair in prepared(pairs):
                for line in skipped.add(processes.union(pair.skipped)):
                    self.report(line)
                terms = self._step(pair.to(self.device))
                last = state.step == config.steps
                numbers = {}
                if state.step % 20 == 0 or last:
                    numbers = {f"loss/{k}": v for k, v in terms.items()}
                    numbers["data/skipped"] = len(skipped.lines)
                if state.step % 100 == 0 or state.step == first + 5:
                    pace = (time.monotonic() - started) / (state.step - first)
                    self.report(self._line(terms, pace))
                measured = None
                if last or state.step % config.validation.every == 0:
                    measured = self._validate()
                # all have to stop after the same step
                stop = processes.any(signals.received is not None)
                # what led to steps that are not finite must not replace what was good
                good = not state.left_out_in_a_row and state.balance.healthy
                due = state.step % config.save_every == 0 and good
                save = stop or last or due
                if numbers or measured or save:
                    processes.by_first(partial(self._write, curves, numbers, measured, save=save))
                if stop:
                    processes.end()
                    raise KeyboardInterrupt
        if skipped.lines:
            self.report(f"{len(skipped.lines)} of {pairs.photos} photos could not be read")
        processes.end()
        return self.config.out / "model.safetensors"

    @contextmanager
    def _curves(self) -> Iterator[Curves | None]:
        """Those that the first process writes, beside the configuration."""
        if not self.processes.first:
            yield None
            return
        out = self.config.out
        write_text(out / "config.json", json.dumps(to_dict(self.config), indent=1))
        with Curves(out, self.state.step) as curves:
            yield curves

    def _step(self, pair: Pair) -> dict[str, float]:
        """The generator's update, then the regularizer's, by this process's share of the batch."""
        config, state, processes = self.config, self.state, self.processes
        self.model.train()
        rate = learning_rate(state.step, config.steps, config.optim)
        state.set_learning_rate(rate)
        then: list[Callable[[], dict[str, Tensor]]] = []

        def first() -> Iterator[dict[str, Tensor]]:
            for draws, part in self._parts(pair):
                with processes.autocast():
                    pixel_loss = config.phase_at(state.step).loss or config.loss
                    losses = self.objective.losses(
                        self.model, part, pixel_loss, draws, state.average
                    )
                if losses.then is not None:
                    then.append(losses.then)
                yield losses.terms

        def second() -> Iterator[dict[str, Tensor]]:
            for following in then:
                with processes.autocast():
                    terms = following()
                yield terms

        out, finite = self._minimise(first())
        if then:
            followed, so_is_this = self._minimise(second())
            out |= {name: value for name, value in followed.items() if name != "norm"}
            finite = finite and so_is_this
        self._count(finite)
        if "discriminator" in out:
            self._weigh(out["discriminator"])
        state.update_average()
        return {**out, "lr": rate}

    def _parts(self, pair: Pair) -> Iterator[tuple[RandomState, Pair]]:
        """This process's share of a batch, in parts, with the random numbers of each."""
        seed, step = self.config.seed, self.state.step
        batch = self.config.phase_at(step).batch
        start = self.processes.share(batch).start
        for part in self.processes.parts(batch):
            # dropout draws from torch's own generator; the data have (seed, step) to themselves
            torch.manual_seed(seeded(seed, step, 2, part.start).initial_seed())
            draws = RandomState(seeded(seed, step, 1), batch, part.start)
            yield draws, pair.part(slice(part.start - start, part.stop - start))

    def _minimise(self, parts: Iterable[dict[str, Tensor]]) -> tuple[dict[str, float], bool]:
        """One update by the mean over the parts of the batch; (what it was, whether finite)."""
        state, processes = self.state, self.processes
        state.optimizer.zero_grad(set_to_none=True)
        seen: dict[str, list[float]] = defaultdict(list)
        for terms in parts:
            processes.backward(torch.stack(list(terms.values())).sum())
            for name, term in terms.items():
                seen[name].append(float(term.detach()))
        out = processes.mean({name: sum(v) / len(v) for name, v in seen.items()})
        out["norm"] = processes.clip(state.trained.values(), self.config.optim.clip)
        finite = all(map(math.isfinite, out.values()))
        if finite:
            state.optimizer.step()
        return out, finite

    def _count(self, finite: bool) -> None:
        """One step more; the end if too many in a row were left out."""
        state, most = self.state, self.config.optim.nonfinite
        state.count(finite=finite)
        if finite:
            return
        row = state.left_out_in_a_row
        self.report(
            f"step {state.step}: the loss or its gradient is not finite; this batch is left out "
            f"({row} in a row, {state.left_out} in all)"
        )
        if row > most:
            raise TrainingError(
                f"step {state.step}: the loss or its gradient was not finite {row} times in a row, "
                f"and optim.nonfinite is {most}; {self.config.out} is as it was last saved; a "
                "lower optim.lr, or precision float32, may help"
            )

    def _weigh(self, loss: float) -> None:
        """The discriminator's loss; the end if it has won or lost for good."""
        state = self.state
        state.balance.add(loss)
        if state.balance.diverged:
            raise TrainingError(
                f"step {state.step}: the discriminator diverged, its loss is "
                f"{state.balance.mean:.3g} on average (1.39 is balance); {self.config.out} is as "
                "it was last saved; a lower "
                "loss.adversarial or objective.discriminator.lr may help"
            )

    def _write(
        self,
        curves: Curves | None,
        numbers: dict[str, float],
        measured: ValidationResult | None,
        *,
        save: bool,
    ) -> None:
        """What the first process leaves of a step."""
        assert curves is not None
        step = self.state.step
        if numbers:
            left_out = {"left_out": float(self.state.left_out)} if self.state.left_out else {}
            curves.add(step, {**numbers, **left_out})
        # before the state is saved: what a kill takes away is then done again
        if measured is not None:
            if measured.picture is not None:
                write_picture(measured.picture, self.config.out / "pictures" / f"{step:06d}.png")
            line = "  ".join(f"{name} {value:.4f}" for name, value in measured.means.items())
            self.report(f"step {step}: {line}")
            curves.add(step, measured.means)
        if save:
            self._save()

    def _save(self) -> None:
        self._check_average()
        card = {**self.config.card, "steps": str(self.state.step)}
        with self._averaged():
            save_checkpoint(
                self.config.out / "model.safetensors",
                self.config.model,
                merged_state_dict(self.model),
                dtype=getattr(torch, self.config.weights),
                card=card,
            )
            write_generator(self.config.out / "lora.safetensors", self.model, self.config, card)
        # last, so that no state speaks of a model that was never written
        self.state.save(self.state_file)

    def _check_average(self) -> None:
        if not all(bool(t.isfinite().all()) for t in self.state.average.values()):
            raise TrainingError(
                f"step {self.state.step}: the averaged weights are not finite; "
                f"{self.config.out} is as it was last saved"
            )

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
    def _validate(self) -> ValidationResult:
        """What the objective measures of the averaged weights; the photos are shared out."""
        self._check_average()
        config, processes = self.config.validation, self.processes
        numbers = range(processes.index, config.count, processes.count)
        own = []
        self.model.eval()
        with self._averaged():
            pairs = validation_pairs(config, numbers, self.validation_photos)
            for i, pair in zip(numbers, pairs, strict=False):
                with processes.autocast():
                    seen = self.objective.validate(self.model, pair.to(self.device), i)
                picture = torch.cat(seen.images, dim=-1).cpu() if i < config.pictures else None
                own.append(
                    ValidatedPhoto(i, {n: v.cpu() for n, v in seen.numbers.items()}, picture)
                )
        return summary(processes.gather(own))


def _say_nothing(_: str) -> None:
    pass
