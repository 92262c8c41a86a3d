"""The training loop: pairs → loss → AdamW → averaged weights, checkpoints, validation.

Shapes: b batch, s size of the crop. Images are in [0, 1].
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hbr.config import to_dict
from hbr.devices import has_slow_bfloat16
from hbr.files import write_text
from hbr.image import Photo, write_photo
from hbr.models.checkpoint import save_checkpoint
from hbr.models.kinds import build_model
from hbr.processes import StopSignals
from hbr.training.adapters import merged_state_dict, write_generator
from hbr.training.compiling import compile_blocks
from hbr.training.conditions import ConditionMaker
from hbr.training.config import OptimConfig, TrainConfig
from hbr.training.cost import with_checkpointing
from hbr.training.crops import Skipped
from hbr.training.curves import AddRow, open_curves
from hbr.training.data import Pair, TrainingPairs, prepared, seeded
from hbr.training.decoding import write_student
from hbr.training.latents import open_latents
from hbr.training.losses import load_networks
from hbr.training.measuring import Seen, summary
from hbr.training.objectives import build_objective
from hbr.training.processes import Processes
from hbr.training.random_state import RandomState
from hbr.training.start import begin_at_identity, embed_negative, load_initial_weights, prepare
from hbr.training.state import TrainingError, TrainState
from hbr.training.validation import check_validation, validation_pairs


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Return the rate of a step (from 0): linear warm-up, constant, cosine decay to 0."""
    rate = config.lr
    if step < config.warmup:
        rate *= (step + 1) / config.warmup
    if config.decay and step >= steps - config.decay:
        rate *= 0.5 * (1 + math.cos(math.pi * (step - (steps - config.decay)) / config.decay))
    return rate


class Trainer:
    """Runs a training, which can be stopped and resumed at any time.

    With `torchrun` or `accelerate launch`, each process creates one, and they train together.

    Args:
        config: the training.
        device: device to train on; without an index if there are several processes.
        report: called with lines of progress, in the first process.
    """

    def __init__(
        self, config: TrainConfig, device: str = "cpu", report: Callable[[str], None] = print
    ) -> None:
        self.config = config
        self.processes = Processes(device, config)
        self.device = self.processes.device
        self.report = report if self.processes.first else lambda line: None
        self.validation_photos = check_validation(config.validation)
        conditions = config.data.conditions
        self.conditions = None if conditions is None else ConditionMaker(conditions)
        self.state_file = config.out / "state.safetensors"
        decided = with_checkpointing(config, self.processes.count, self.device, self.report)
        networks = load_networks(config, self.device)
        torch.manual_seed(config.seed)
        model = build_model(config.model)
        resumed = self.state_file.exists() and config.keeps_all
        if config.init is not None and not resumed:
            load_initial_weights(model, config, self.report)
        elif config.start == "identity":
            begin_at_identity(model, config)
        negative = embed_negative(model, config)
        self.objective = build_objective(config, networks, negative)
        prepare(model, decided, self.objective.parts)
        if config.compile:
            compile_blocks(model, self.report)
        slow = config.precision == "bfloat16" and self.device.type == "cpu" and has_slow_bfloat16()
        if slow and not self.state_file.exists():  # a resumed training keeps its precision
            self.report(
                "precision is bfloat16, and this processor is faster in float32: "
                "--set precision=float32"
            )
        # convolutions on CPUs and tensor cores are fastest in channels-last layout
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.processes.equal_weights(p for p in self.model.parameters() if p.requires_grad)
        self.state = TrainState(self.model, config)
        if self.state_file.exists():
            self.state.load(self.state_file)
            self.report(f"resuming at step {self.state.step} of {config.steps}")
        self.latents = open_latents(config, self.model, self.device)
        self.processes.agree({"recipe": to_dict(config), "number of steps made": self.state.step})

    def run(self) -> Path:
        """Train to the end and return the model file.

        Raises:
            KeyboardInterrupt: the training was stopped; its state has been saved.
            TrainingError: the training cannot continue; the last checkpoint is intact.
            WeightsError, OSError: a file cannot be written; the last checkpoint is intact.
        """
        config, state, processes = self.config, self.state, self.processes
        processes.begin()
        pairs = TrainingPairs(
            config,
            state.step,
            processes.index,
            processes.count,
            self.latents,
            degraded=config.data.device == "cpu" or self.device.type != "cuda",
        )
        for warning in filter(None, (source.warning for source in pairs.sources)):
            self.report(warning)
        skipped = Skipped(pairs.photos, config.data.errors, state.skipped)
        with self._curves() as add, StopSignals(raises=False) as signals:
            started, first = time.monotonic(), state.step
            for crops in prepared(pairs):
                pair = crops.to(self.device)
                for line in skipped.add(processes.union(pair.skipped)):
                    self.report(line)
                terms = self._step(self._with_latents(pair))
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
                # all processes have to stop after the same step
                stop = processes.any(signals.received is not None)
                # do not overwrite a good checkpoint with diverging weights
                good = not state.left_out_in_a_row and state.balance.healthy
                due = state.step % config.save_every == 0 and good
                save = stop or last or due
                if numbers or measured or save:
                    processes.by_first(partial(self._write, add, numbers, measured, save=save))
                if stop:
                    processes.end()
                    raise KeyboardInterrupt
        if skipped.lines:
            self.report(f"{len(skipped.lines)} of {pairs.photos} photos could not be read")
        processes.end()
        return self.config.out / "model.safetensors"

    @contextmanager
    def _curves(self) -> Iterator[AddRow | None]:
        """Write the configuration and open the curves, in the first process."""
        if not self.processes.first:
            yield None
            return
        out = self.config.out
        write_text(out / "config.json", json.dumps(to_dict(self.config), indent=1))
        with open_curves(out, self.state.step) as add:
            yield add

    def _with_latents(self, pair: Pair) -> Pair:
        """Return the batch with the latents of its HQ crops, if they are kept."""
        if self.latents is None:
            return pair
        with self.processes.autocast():
            latents = self.latents.complete(pair.hq, pair.latents, self.model.encode)
        return replace(pair, latents=latents)

    def _step(self, pair: Pair) -> dict[str, float]:
        """Update the generator, then the regularizer, with this process's share of the batch."""
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
            for losses in then:
                with processes.autocast():
                    terms = losses()
                yield terms

        out, finite = self._minimise(first())
        if then:
            second_out, second_finite = self._minimise(second())
            out |= {name: value for name, value in second_out.items() if name != "norm"}
            finite = finite and second_finite
        self._count(finite)
        if "discriminator" in out:
            self._check_discriminator(out["discriminator"])
        state.update_average()
        return {**out, "lr": rate}

    def _parts(self, pair: Pair) -> Iterator[tuple[RandomState, Pair]]:
        """Yield the parts of this process's share of a batch with their random numbers."""
        seed, step = self.config.seed, self.state.step
        batch = self.config.phase_at(step).batch
        start = self.processes.share(batch).start
        for part in self.processes.parts(batch):
            # for dropout, which uses torch's global generator; data use (seed, step)
            torch.manual_seed(seeded(seed, step, 2, part.start).initial_seed())
            draws = RandomState(seeded(seed, step, 1), batch, part.start)
            yield draws, pair.part(slice(part.start - start, part.stop - start))

    def _minimise(self, parts: Iterable[dict[str, Tensor]]) -> tuple[dict[str, float], bool]:
        """Accumulate gradients over the parts and update; return (values, whether finite)."""
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
        """Count a step; raise `TrainingError` after too many consecutive non-finite ones."""
        state, limit = self.state, self.config.optim.nonfinite
        state.count(finite=finite)
        if finite:
            return
        row = state.left_out_in_a_row
        self.report(
            f"step {state.step}: the loss or its gradient is not finite; the batch is skipped "
            f"({row} in a row, {state.left_out} in total)"
        )
        if row > limit:
            raise TrainingError(
                f"step {state.step}: the loss or its gradient was not finite {row} times in a row, "
                f"and optim.nonfinite is {limit}; {self.config.out} holds the last checkpoint; try "
                "a lower optim.lr, or precision float32"
            )

    def _check_discriminator(self, loss: float) -> None:
        """Track the discriminator's loss; raise `TrainingError` if it has collapsed."""
        state = self.state
        state.balance.add(loss)
        if state.balance.diverged:
            raise TrainingError(
                f"step {state.step}: the discriminator diverged, its loss is "
                f"{state.balance.mean:.3g} on average (1.39 is balanced); {self.config.out} holds "
                "the last checkpoint; try a lower loss.adversarial or objective.discriminator.lr"
            )

    def _write(
        self,
        add: AddRow | None,
        numbers: dict[str, float],
        measured: tuple[dict[str, float], Tensor | None] | None,
        *,
        save: bool,
    ) -> None:
        """Write the results of a step, in the first process."""
        assert add is not None
        step = self.state.step
        if numbers:
            left_out = {"left_out": float(self.state.left_out)} if self.state.left_out else {}
            add(step, {**numbers, **left_out})
        # written before the state is saved, so that a killed process repeats it
        if measured is not None:
            means, picture = measured
            if picture is not None:
                file = self.config.out / "pictures" / f"{step:06d}.png"
                file.parent.mkdir(exist_ok=True)
                write_photo(Photo.from_tensor(picture), file)
            line = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
            self.report(f"step {step}: {line}")
            add(step, means)
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
            write_student(self.config.out / "decoder.safetensors", self.model, self.config, card)
        # last, so that a saved state implies a saved model
        self.state.save(self.state_file)

    def _check_average(self) -> None:
        if not all(bool(t.isfinite().all()) for t in self.state.average.values()):
            raise TrainingError(
                f"step {self.state.step}: the averaged weights are not finite; "
                f"{self.config.out} holds the last checkpoint"
            )

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Use the averaged weights instead of the trained ones within the context."""
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
    def _validate(self) -> tuple[dict[str, float], Tensor | None]:
        """Validate the averaged weights, see `summary`; the processes share the photos."""
        self._check_average()
        config, processes = self.config.validation, self.processes
        numbers = range(processes.index, config.count, processes.count)
        own: list[Seen] = []
        self.model.eval()
        with self._averaged():
            pairs = validation_pairs(config, numbers, self.validation_photos, self.conditions)
            for i, pair in zip(numbers, pairs, strict=False):
                with processes.autocast():
                    seen = self.objective.validate(self.model, pair.to(self.device), i)
                picture = torch.cat(seen.images, dim=-1).cpu() if i < config.pictures else None
                own.append((i, {n: v.cpu() for n, v in seen.numbers.items()}, picture))
        return summary(processes.gather(own))
