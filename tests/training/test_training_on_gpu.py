"""Training on a GPU: it learns, it repeats itself nearly, and it goes on where it stopped.

HBR_TEST_GPU=cpu tries the tests themselves on a machine without a GPU.
"""

import json
import os
import signal

import pytest
import torch
from toy_training import ADAPTED, settings

from hbr.config import from_dict
from hbr.models import build, read_checkpoint
from hbr.training.config import TrainConfig
from hbr.training.data import TrainingPairs
from hbr.training.loop import Trainer

pytestmark = pytest.mark.gpu

ADVERSARIAL = {"kind": "restoration", "discriminator": {"width": 4, "lr": 1e-3}}
PHASES = [{"steps": 6, "crop": 32, "batch": 2}]


def train(values, device):
    return Trainer(from_dict(TrainConfig, values), device, report=lambda line: None).run()


def last_losses(out):
    rows = [json.loads(line) for line in (out / "curves.jsonl").read_text().splitlines()]
    return [row for row in rows if any(name.startswith("loss/") for name in row)][-1]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_begins_as_on_the_cpu(tmp_path, gpu, precision):
    losses = []
    for i, device in enumerate(("cpu", gpu)):
        train(settings(tmp_path / str(i), precision=precision, phases=PHASES), device)
        losses.append(last_losses(tmp_path / str(i))["loss/l1"])
    cpu, there = losses
    assert there == pytest.approx(cpu, rel=0.02 if precision == "float32" else 0.1)


def test_crops_degraded_there_are_those_of_the_cpu(tmp_path, gpu):
    values = settings(tmp_path, phases=PHASES)
    values["data"] |= {"device": "auto", "degradations": {"real-esrgan": 1.0, "motion-blur": 1.0}}
    pairs = TrainingPairs(from_dict(TrainConfig, values), 0)
    here, there = pairs.batch(0), pairs.undegraded(0).to(torch.device(gpu))
    assert there.lq.device.type == torch.device(gpu).type
    rounding = 0.0 if gpu == "cpu" else 1e-6
    torch.testing.assert_close(there.hq.cpu(), here.hq, rtol=0, atol=rounding)
    assert (there.lq.cpu() - here.lq).abs().mean() < 0.5 / 255


def test_what_was_trained_is_a_model(tmp_path, gpu):
    model = build(read_checkpoint(train(settings(tmp_path), gpu)))
    assert torch.isfinite(model(torch.rand(1, 3, 32, 32))).all()


@pytest.fixture(scope="module")
def prior(tmp_path_factory, gpu):
    out = tmp_path_factory.mktemp("prior") / "prior"
    return train(settings(out, objective={"kind": "diffusion"}, phases=PHASES), gpu)


def test_vsd(tmp_path, gpu, prior):
    values = settings(tmp_path, objective=ADAPTED, init=str(prior), phases=PHASES)
    file = train(values, gpu)
    last = last_losses(tmp_path)
    assert last["loss/vsd"] > 0
    assert last["loss/regularizer"] > 0
    before, after = (read_checkpoint(f).tensors for f in (prior, file))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_adversarial(tmp_path, gpu):
    loss = {"l1": 1.0, "adversarial": 0.05}
    train(settings(tmp_path, objective=ADVERSARIAL, loss=loss, phases=PHASES), gpu)
    last = last_losses(tmp_path)
    assert "loss/adversarial" in last
    assert all(value == value for value in last.values())  # no NaN


def test_going_on_gives_nearly_what_one_run_gives(tmp_path, gpu):
    values = settings(tmp_path / "once")
    once = read_checkpoint(train(values, gpu)).tensors
    config = from_dict(TrainConfig, settings(tmp_path / "twice"))
    told = []

    def stop(line):
        told.append(line)
        if len(told) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        Trainer(config, gpu, report=stop).run()
    again = Trainer(config, gpu, report=told.append)
    assert any(line.startswith("resuming at step 5 of 8") for line in told)
    twice = read_checkpoint(again.run()).tensors
    for name, tensor in once.items():
        torch.testing.assert_close(twice[name].float(), tensor.float(), rtol=1e-2, atol=2e-3)


def test_checkpointing_needs_less_memory_and_changes_nothing(tmp_path, gpu):
    phases = [{"steps": 5, "crop": 64, "batch": 8}]
    peaks, files = [], []
    for on in (False, True):
        if gpu == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        values = settings(tmp_path / str(on), phases=phases, memory={"checkpointing": on})
        files.append(read_checkpoint(train(values, gpu)).tensors)
        if gpu == "cuda":
            peaks.append(torch.cuda.max_memory_allocated())
    for name, tensor in files[0].items():
        torch.testing.assert_close(files[1][name], tensor, rtol=1e-2, atol=2e-3)
    if gpu == "cuda":
        assert peaks[1] < peaks[0]
