"""What is given for less memory changes no gradient; what is left undecoded is drawn, and fits."""

from pathlib import Path

import pytest
import torch
from toy_training import ADAPTED, MODEL, adapted, gradients_of, settings, train

from hbr.config import ConfigError, from_dict
from hbr.devices import free_memory
from hbr.models import Conditions, lora, read_checkpoint
from hbr.models.onestep import OneStepRestorer
from hbr.training.adapters import regularizer_adapters
from hbr.training.config import LossConfig, TrainConfig
from hbr.training.cost import TrainingPlan, plan, with_checkpointing
from hbr.training.data import Pair, seeded
from hbr.training.loop import Trainer
from hbr.training.losses import PixelTerms, random_squares
from hbr.training.objectives import build_objective
from hbr.training.random_state import RandomState
from hbr.training.start import checkpoint_blocks

# with a level to halve in the autoencoder and attention in every place where diffusers has it
AUTOENCODER = {**MODEL["autoencoder"], "block_out_channels": [8, 16], "mid_attention": True}
BOTH = {**MODEL, "autoencoder": {**AUTOENCODER, "patch_size": 2}}

Gradients = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]


def gradients(checkpointed: bool, *, left_active: bool = False) -> tuple[Gradients, int]:
    """Of both updates of a step with VSD; and how often the U-Net's first block was computed."""
    config, model = adapted(model=BOTH)
    if checkpointed:
        checkpoint_blocks(model)
    model.train()
    computed: list[int] = []
    model.unet.down_blocks[0].resnets[0].register_forward_pre_hook(lambda *_: computed.append(1))
    lq = torch.rand(2, 3, 32, 32, generator=seeded(0, 0))
    losses = build_objective(config).losses(
        model, Pair(hq=lq.flip(-1), lq=lq), config.loss, RandomState(seeded(0, 0, 1))
    )
    if left_active:
        lora.activate(model.unet, regularizer_adapters(model.unet))
    return gradients_of(model, losses), len(computed)


def test_checkpointing_changes_no_gradient() -> None:
    plain, once = gradients(checkpointed=False)
    again, twice = gradients(checkpointed=True)
    # the generator, three networks of the distillation, the regularizer; two have a way back
    assert (once, twice) == (5, 7)
    for before, after in zip(plain, again, strict=True):
        assert before.keys() == after.keys()
        for name, gradient in before.items():
            torch.testing.assert_close(after[name], gradient, rtol=1e-6, atol=1e-8)
    generator, regularizer = plain
    assert not any(".regularizer_" in name for name in generator)
    assert all(".regularizer_" in name for name in regularizer)
    assert max(g.abs().max() for g in generator.values()) > 1e-3


def test_checkpointing_needs_the_adapters_of_the_way_there() -> None:
    """That the other ones act after the distillation would be noticed by the test above."""
    plain, _ = gradients(checkpointed=True)
    wrong, _ = gradients(checkpointed=True, left_active=True)
    names = [name for name in plain[0] if name.startswith("unet.")]
    same = [n for n in names if n in wrong[0] and torch.allclose(plain[0][n], wrong[0][n])]
    assert len(same) < len(names) / 2


def test_a_training_with_and_without_checkpointing_is_the_same(tmp_path: Path) -> None:
    files = [
        train(settings(tmp_path / str(on), memory={"checkpointing": on})) for on in (False, True)
    ]
    plain, again = (read_checkpoint(file).tensors for file in files)
    for name, tensor in plain.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-5, atol=1e-6)


def test_squares_of_latents_and_images_lie_at_the_same_place() -> None:
    places = torch.arange(64.0).view(1, 1, 8, 8).expand(300, 1, 8, 8)
    hq = torch.nn.functional.interpolate(places, scale_factor=4).expand(300, 3, 32, 32)
    z, image, same = random_squares(places, (hq, hq + 1), 20, RandomState(seeded(0)))
    assert (z.shape, image.shape) == ((300, 1, 5, 5), (300, 3, 20, 20))
    assert torch.equal(torch.nn.functional.interpolate(z, scale_factor=4), image[:, :1])
    assert torch.equal(same, image + 1)
    # each of the 4 × 4 corners comes up
    assert len(set(z[:, 0, 0, 0].tolist())) == 16
    again, *_ = random_squares(places, (hq,), 20, RandomState(seeded(0)))
    assert torch.equal(z, again)


def test_only_the_square_is_decoded_and_only_then_is_anything_drawn() -> None:
    config = from_dict(TrainConfig, settings(Path("out")))
    model = OneStepRestorer(config.model)
    decoded: list[torch.Size] = []
    model.autoencoder.decoder.register_forward_hook(lambda _, x, y: decoded.append(x[0].shape))
    hq = torch.rand(2, 3, 64, 64)
    z = model.encode(hq)
    for crop, cells in ((None, 16), (32, 8), (64, 16)):
        generator = seeded(1)
        before = generator.get_state()
        pixels = PixelTerms(LossConfig(mse=1.0), decode_crop=crop)
        terms = pixels(model, z, hq, hq, RandomState(generator)).terms
        assert decoded.pop()[-2:] == (cells, cells)
        assert torch.equal(before, generator.get_state()) == (crop is None)
        (slope,) = torch.autograd.grad(terms["mse"], z, retain_graph=True)
        touched = (slope.abs().sum(dim=1) > 0).flatten(1).sum(dim=1)
        assert touched.tolist() == [cells**2] * 2


@pytest.mark.slow
def test_a_training_that_decodes_squares_learns_from_them(tmp_path: Path) -> None:
    phases = [{"steps": 8, "crop": 64, "batch": 1}]
    values = settings(
        tmp_path,
        phases=phases,
        objective=ADAPTED,
        memory={"decode_crop": 32, "checkpointing": True},
    )
    lines = Path(train(values)).with_name("curves.jsonl").read_text().splitlines()
    assert "loss/vsd" in lines[-2]
    assert "loss/l1" in lines[-2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory": {"decode_crop": 30}}, "memory.decode_crop is 30; it must be a multiple of 4"),
        ({"memory": {"decode_crop": 64}}, "memory.decode_crop is 64; .* at most the crop 32"),
        ({"memory": {"decode_crop": 0}}, "1 or more"),
        (
            {"memory": {"decode_crop": 32}, "objective": {"kind": "diffusion"}},
            "the diffusion objective does not decode",
        ),
        ({"loss": {"lpips": -1.0}}, "weights, not all 0"),
        ({"loss": {"lpips": 1.0, "net": "alex"}}, "loss.net is not known"),
    ],
)
def test_what_cannot_be_is_told(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(TrainConfig, settings(Path("out"), **change))


def test_conditions_are_split_with_the_batch(tmp_path: Path) -> None:
    """By `optim.accumulate`: each part of a batch has its own share of every condition."""
    changes = {"phases": [{"steps": 4, "crop": 32, "batch": 6}], "start": "random"}
    optim = {"lr": 1e-3, "warmup": 1, "accumulate": 3}
    values = settings(tmp_path / "out", **changes, optim=optim)
    trainer = Trainer(from_dict(TrainConfig, values), report=lambda line: None)
    hq = torch.rand(6, 3, 32, 32)
    number = torch.arange(6.0).view(6, 1, 1)
    pair = Pair(
        hq=hq, lq=hq * 0.9, conditions=Conditions(maps={"pose": hq}, tokens={"prompt": number})
    )
    parts = [part for _, part in trainer._parts(pair.to(trainer.device))]
    assert [len(part.hq) for part in parts] == [2, 2, 2]
    for i, part in enumerate(parts):
        assert torch.equal(part.conditions.maps["pose"], part.hq)
        assert part.conditions.tokens["prompt"].flatten().tolist() == [2 * i, 2 * i + 1]


# --- checkpointing by the memory of the device


def small(out: Path, **changes: object) -> TrainConfig:
    phases = [{"steps": 5, "crop": 64, "batch": 4}]
    memory = {"memory": {"checkpointing": "auto"}}
    return from_dict(TrainConfig, settings(out, phases=phases, **{**memory, **changes}))


def planned_once(config: TrainConfig, monkeypatch) -> TrainingPlan:
    """The plan of a training, which whoever asks for it later gets without another simulation."""
    found = plan(config, device="cpu")

    def again(given: TrainConfig, processes: int, device: str) -> TrainingPlan:
        assert (given, processes, device) == (config, 1, "cpu")
        return found

    monkeypatch.setattr("hbr.training.cost.plan", again)
    return found


def test_checkpointing_is_on_where_the_training_would_not_fit(tmp_path: Path, monkeypatch) -> None:
    config, lines = small(tmp_path), []
    found = planned_once(config, monkeypatch)
    assert found.peak_checkpointed is not None
    assert found.peak_checkpointed < found.peak
    for free, on in ((found.peak, True), (2 * found.peak, False)):
        monkeypatch.setattr("hbr.training.cost.free_memory", lambda _, free=free: free)
        decided = with_checkpointing(config, 1, torch.device("cpu"), lines.append)
        assert decided.memory.checkpointing is on
    assert "memory.checkpointing is on: the training needs " in lines[0]
    assert "memory.checkpointing is off: " in lines[1]
    assert f"cpu has {2 * found.peak / 1e9:.2f} GB free" in lines[1]
    given = small(tmp_path, memory={"checkpointing": False})
    assert with_checkpointing(given, 1, torch.device("cpu"), pytest.fail) is given


def test_a_training_decides_before_it_begins(tmp_path: Path, monkeypatch) -> None:
    planned_once(small(tmp_path), monkeypatch)
    for free, on in ((0, True), (10**15, False)):
        monkeypatch.setattr("hbr.training.cost.free_memory", lambda _, free=free: free)
        lines: list[str] = []
        trainer = Trainer(small(tmp_path), report=lines.append)
        assert trainer.model.unet.is_gradient_checkpointing is on
        assert trainer.config.memory.checkpointing == "auto"
        assert sum("memory.checkpointing is" in line for line in lines) == 1
    assert plan(small(tmp_path, memory={"checkpointing": True})).peak_checkpointed is None
    with pytest.raises(ConfigError, match=r"memory\.checkpointing"):
        small(tmp_path, memory={"checkpointing": "maybe"})


def test_the_free_memory_of_a_container(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("hbr.devices._CGROUP", tmp_path)
    cpu = torch.device("cpu")
    assert free_memory(cpu) > 2**20  # no such files
    for limit, used, expected in ((2**20, 2**18, 2**20 - 2**18), (2**18, 2**20, 0)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
        assert free_memory(cpu) == expected
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(cpu) > 2**20
