"""DiffBody at toy size: the control branch, the losses of parts, and how it samples."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import ControlNetModel
from torch import Tensor, nn

from hbr.config import ConfigError
from hbr.models import WeightsError, load_model, save_checkpoint
from hbr.models.checkpoint import empty
from hbr.models.diffbody.config import DiffBodyConfig
from hbr.models.diffbody.control import copy_encoder, predict_controlled, split_first_convolution
from hbr.models.diffbody.model import DiffBody
from hbr.models.diffbody.parts import PartNetwork, Parts, foreground, part_loss
from hbr.models.protocol import Conditions, Place, Sampling
from toy_diffbody import PARTS, toy_config, toy_model

PLACE = [Place(0, 0, 64, 64)]


@pytest.fixture
def base(goldens: Path) -> Path:
    return goldens / "osediff" / "base"


@pytest.fixture(scope="module")
def made(shared: Path) -> DiffBody:
    return toy_model(shared / "goldens" / "osediff" / "base")


@pytest.fixture
def model(made: DiffBody) -> DiffBody:
    """A toy model that may be changed."""
    return copy.deepcopy(made)


def given(b: int = 1, edge: int = 64) -> tuple[Tensor, Conditions]:
    torch.manual_seed(1)
    maps = {"pose": torch.rand(b, 3, edge, edge), "attention": torch.rand(b, 1, edge, edge)}
    return torch.rand(b, 3, edge, edge), Conditions(maps=maps)


def inputs(model: DiffBody) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(2)
    image, conditions = given(2)
    p = torch.randn(2, 7, model.config.unet.cross_attention_dim)
    return torch.randn(2, 4, 8, 8), torch.tensor([10, 700]), p, model.condition(image, conditions)


# --- the control branch


def test_at_the_start_the_output_is_the_frozen_unets_bit_for_bit(model: DiffBody) -> None:
    z, t, p, condition = inputs(model)
    assert condition.shape == (2, 9, 8, 8)
    assert torch.equal(model.predict(z, t, p, condition), model.unet(z, t, p).sample)


def widened(model: DiffBody, weight: Tensor) -> ControlNetModel:
    """A control branch whose first convolution sees 13 channels, and whose hint is nothing."""
    wide = ControlNetModel.from_unet(model.unet, load_weights_from_unet=False)
    wide.load_state_dict(model.control.state_dict(), strict=False)
    wide.conv_in = nn.Conv2d(13, len(weight), 3, padding=1)
    wide.conv_in.weight.data.copy_(weight)
    wide.conv_in.bias.data.copy_(model.control.conv_in.bias)
    wide.controlnet_cond_embedding = _Nothing()
    return wide.eval()


class _Nothing(nn.Module):
    def forward(self, condition: Tensor) -> Tensor:
        return torch.zeros(())


def test_the_hint_is_a_first_convolution_of_13_channels(model: DiffBody) -> None:
    z, t, p, condition = inputs(model)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.control.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    hint = model.control.controlnet_cond_embedding
    hint.bias.data.zero_()
    wide = widened(model, torch.cat([model.control.conv_in.weight, hint.weight], dim=1))
    ours = model.predict(z, t, p, condition)
    both = torch.cat([z, condition], dim=1)
    down, middle = wide(both, t, p, controlnet_cond=condition, return_dict=False)
    theirs = model.unet(
        z, t, p, down_block_additional_residuals=down, mid_block_additional_residual=middle
    ).sample
    assert (ours - model.unet(z, t, p).sample).abs().max() > 1e-3
    assert torch.allclose(ours, theirs, atol=1e-5)
    # and its file loads into ours
    again = split_first_convolution(wide.state_dict(), 4)
    fresh = toy_model_like(model)
    fresh.load_state_dict(again)
    assert torch.allclose(
        predict_controlled(model.unet, fresh, z, t, p, condition), theirs, atol=1e-5
    )


def toy_model_like(model: DiffBody) -> ControlNetModel:
    return DiffBody(model.config).eval().requires_grad_(False).control


def test_split_leaves_a_narrow_convolution_as_it_is(model: DiffBody) -> None:
    state = model.control.state_dict()
    assert split_first_convolution(state, 4).keys() == state.keys()
    with pytest.raises(WeightsError, match=r"conv_in\.weight is missing or sees less than 4"):
        split_first_convolution({"conv_in.weight": torch.zeros(8, 3, 3, 3)}, 4)


def test_starting_anew_undoes_a_training(model: DiffBody) -> None:
    z, t, p, condition = inputs(model)
    for parameter in model.control.parameters():
        parameter.data.add_(0.1)
    copy_encoder(model.control, model.unet)
    assert torch.equal(model.predict(z, t, p, condition), model.unet(z, t, p).sample)


def test_the_condition_is_the_latents_and_the_attention(model: DiffBody) -> None:
    image, conditions = given()
    seen = model.condition(image, conditions)
    assert torch.equal(seen[:, :4], model.encode(image))
    assert torch.equal(seen[:, 4:8], model.encode(conditions.maps["pose"]))
    attention = conditions.maps["attention"]
    assert torch.allclose(seen[:, 8:], F.avg_pool2d(attention, 8), atol=1e-6)
    blank = model.condition(image, Conditions())
    assert torch.equal(blank[:, 4:8], model.encode(torch.zeros_like(image)))
    assert not blank[:, 8:].any()


@pytest.mark.parametrize(("conditions", "channels"), [((), 4), (("pose",), 8), (("attention",), 5)])
def test_an_ablation_has_fewer_conditions(base: Path, conditions, channels: int) -> None:
    model = toy_model(base, conditions=conditions)
    image, maps = given()
    assert model.condition(image, maps).shape[1] == channels


def test_the_full_size_has_the_published_shapes() -> None:
    shapes = {n: tuple(t.shape) for n, t in empty(DiffBodyConfig()).state_dict().items()}
    assert shapes["control.controlnet_cond_embedding.weight"] == (320, 9, 3, 3)
    count = {
        part: sum(np.prod(s) for n, s in shapes.items() if n.startswith(f"{part}."))
        for part in ("unet", "control")
    }
    assert count["unet"] == 865_910_724
    # encoder and middle of the U-Net, 13 zero convolutions, and the hint of 9 channels
    control = ControlNetModel.from_config(
        {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20]}
        | {"use_linear_projection": True, "conditioning_embedding_out_channels": [16]}
    )
    embedding = sum(p.numel() for p in control.controlnet_cond_embedding.parameters())
    published = sum(p.numel() for p in control.parameters()) - embedding
    assert count["control"] == published + 9 * 320 * 9 + 320


# --- the network of parts


def test_parts_are_a_softmax_and_the_foreground_their_maximum() -> None:
    torch.manual_seed(0)
    network = PartNetwork(PARTS).eval()
    found = network(torch.rand(2, 3, 64, 48))
    assert found.posteriors.shape == (2, 6, 16, 12)
    assert found.features.shape == (2, 5, 6)
    assert torch.allclose(found.posteriors.sum(dim=1), torch.ones(2, 16, 12), atol=1e-6)
    whole = foreground(found.posteriors, (16, 12))
    assert torch.allclose(whole[:, 0], found.posteriors[:, :5].amax(dim=1))
    assert foreground(found.posteriors, (64, 48)).shape == (2, 1, 64, 48)


def test_the_feature_of_a_part_is_the_mean_under_its_posterior() -> None:
    torch.manual_seed(0)
    network = PartNetwork(PARTS).eval().double()
    image = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    found = network(image)
    cells = np.maximum(network.features(image).detach().numpy()[0], 0)
    posteriors = found.posteriors.detach().numpy()[0]
    for part in range(5):
        weight = posteriors[part]
        mean = (cells * weight).sum(axis=(1, 2)) / weight.sum()
        assert np.abs(found.features[0, part].detach().numpy() - mean).max() < 1e-6


def some_parts(seed: int, sharp: float) -> Parts:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 6, 3, 4, generator=generator, dtype=torch.float64) * sharp
    features = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    return Parts(logits.softmax(dim=1), features)


@pytest.mark.parametrize("kind", ["cosine", "cross-entropy", "squared"])
def test_the_losses_of_parts_by_numpy(kind: str) -> None:
    found, wanted = some_parts(1, 1.0), some_parts(2, 0.5)
    p, q = found.posteriors.numpy(), wanted.posteriors.numpy()
    a, b = found.features.numpy(), wanted.features.numpy()
    visible = q[:, :5].max(axis=(2, 3)) > 0.4
    assert 0 < visible.sum() < 10
    total = 0.0
    for i in range(2):
        if kind == "cross-entropy":
            total += -(q[i] * np.log(p[i])).sum(axis=0).mean()
            continue
        for k in np.flatnonzero(visible[i]):
            if kind == "cosine":
                norms = np.linalg.norm(a[i, k]) * np.linalg.norm(b[i, k])
                total += 1 - a[i, k] @ b[i, k] / norms
            else:
                total += ((a[i, k] - b[i, k]) ** 2).mean()
    assert abs(float(part_loss(found, wanted, kind)) - total) < 1e-9


@pytest.mark.parametrize("kind", ["cosine", "squared"])
def test_equal_parts_have_no_loss(kind: str) -> None:
    found = some_parts(1, 3.0)
    assert float(part_loss(found, found, kind)) == pytest.approx(0, abs=1e-9)


# --- sampling


def sampled(model: DiffBody, seed: int = 0, edge: int = 64, **settings) -> Tensor:
    image, conditions = given(edge=edge)
    with torch.inference_mode():
        return model.restore(
            image,
            PLACE,
            Conditions(maps=conditions.maps, sampling=Sampling(steps=3, **settings), seed=seed),
        )


@pytest.mark.parametrize("sampler", ["guided", "ddpm", "ddim", "unipc"])
def test_the_seed_decides_the_picture(model: DiffBody, sampler: str) -> None:
    first = sampled(model, sampler=sampler)
    assert first.shape == (1, 3, 64, 64)
    assert torch.equal(first, sampled(model, sampler=sampler))
    assert not torch.allclose(first, sampled(model, sampler=sampler, seed=1), atol=1e-3)


def test_without_a_scale_guided_is_ddpm(model: DiffBody) -> None:
    plain = sampled(model, sampler="ddpm")
    assert torch.equal(sampled(model, sampler="guided", guidance=0.0), plain)
    assert not torch.equal(sampled(model, sampler="guided", guidance=1.0), plain)


@pytest.mark.parametrize(
    "settings",
    [
        {"through": "full"},
        {"part_loss": "squared"},
        {"part_loss": "cross-entropy"},
        {"repeats": 2},
        {"window": (0.5, 1.0)},
        {"start": "photo"},
        {"text_guidance": 1.0},
    ],
)
def test_every_setting_matters(model: DiffBody, settings: dict) -> None:
    torch.manual_seed(0)
    for parameter in model.control.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    # toy texts: the negative prompt is the empty one, and so is the prompt unless there is one
    image, conditions = given()
    tokens = {"prompt": model.embed("a person with a hat")}

    def made(**more) -> Tensor:
        sampling = Sampling(steps=3, guidance=5.0, **more)
        return model.restore(
            image, PLACE, Conditions(maps=conditions.maps, tokens=tokens, sampling=sampling)
        )

    assert not torch.allclose(made(**settings), made(), atol=1e-5)


def test_a_model_without_parts_is_guided_by_the_picture(base: Path) -> None:
    model = toy_model(base, parts=None)
    assert model.attention(torch.rand(1, 3, 64, 64)) is None
    assert not torch.equal(sampled(model, guidance=1.0), sampled(model, guidance=0.0))


def test_in_a_larger_photo_each_person_guides_by_a_crop(model: DiffBody) -> None:
    image, conditions = given(edge=128)
    boxes = ((0, 10, 60, 120), (64, 20, 128, 110))

    def loss(z_0: Tensor, people: tuple[tuple[int, int, int, int], ...]) -> Tensor:
        return model._guidance(image, replace(conditions, people=people)).loss(z_0)

    z_0 = model.encode(torch.rand(1, 3, 128, 128))
    expected = 0.0
    for x0, y0, x1, y1 in boxes:
        made, wanted = (x[..., y0:y1, x0:x1] for x in (model.decode(z_0), image))
        expected += float(part_loss(model.parts(made), model.parts(wanted), "cosine"))
    assert expected > 0
    assert float(loss(z_0, boxes)) == pytest.approx(expected, rel=1e-5)
    assert float(loss(z_0, ())) != pytest.approx(expected, rel=1e-3)
    model.config = replace(model.config, native_size=128)  # no larger than the model's own size
    assert torch.equal(loss(z_0, boxes), loss(z_0, ()))


def test_a_larger_photo_is_denoised_in_windows(model: DiffBody, monkeypatch) -> None:
    sizes = []
    predict = DiffBody.predict

    def counted(self, z_t, t, p, condition):
        sizes.append(tuple(z_t.shape[-2:]))
        return predict(self, z_t, t, p, condition)

    monkeypatch.setattr(DiffBody, "predict", counted)
    assert sampled(model, edge=128, sampler="ddim", text_guidance=1.0).shape == (1, 3, 128, 128)
    assert set(sizes) == {(8, 8)}
    assert len(sizes) == 3 * 9


def test_previews_come_after_each_step(model: DiffBody) -> None:
    seen = []
    image, conditions = given()

    def watch(done, total, preview):
        seen.append((done, total, preview()))

    sampling = Sampling(steps=2, sampler="ddpm")
    model.restore(image, PLACE, Conditions(maps=conditions.maps, sampling=sampling, watch=watch))
    assert [(done, total) for done, total, _ in seen] == [(1, 2), (2, 2)]
    for _, _, preview in seen:
        assert preview.shape == (1, 3, 64, 64)
        assert 0 <= preview.min() <= preview.max() <= 1


def test_a_copy_of_the_model_decodes_with_its_own_weights(model: DiffBody) -> None:
    again = copy.deepcopy(model)
    for parameter in model.autoencoder.parameters():
        parameter.data.zero_()
    z = torch.randn(1, 4, 8, 8, requires_grad=True)
    assert not model.decode(z).std() > 0
    assert again.decode(z).std() > 0


def test_a_file_holds_all_of_it(model: DiffBody, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "toy.safetensors", model.config, model.state_dict())
    again = load_model(path)
    assert again.config == model.config
    assert torch.allclose(sampled(again), sampled(model), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"conditions": ("pose", "pose")}, "conditions"), ({"native_size": 60}, "native_size is 60")],
)
def test_a_configuration_names_what_is_wrong(base: Path, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toy_config(base, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0; it must be from 1 to 1000"),
        ({"guidance": -1.0}, "guidance is -1.0; it must be 0 or more"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"text_guidance": float("inf")}, "text_guidance is inf"),
        ({"sampler": "euler"}, "sampler is 'euler'; it must be one of guided, ddpm, ddim, unipc"),
        ({"window": (0.5, 0.2)}, "window"),
        ({"repeats": 0}, "repeats"),
        ({"strength": 0.0, "start": "photo"}, "strength is 0.0; it must be above 0"),
        ({"strength": 0.5}, "strength is 0.5; it must be 1 but for a start from the photo"),
    ],
)
def test_a_sampling_names_what_is_wrong(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sampling(**changes)
