"""RAM's tagger: parity with its published formula, DAPE's LoRA, its lists."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

import toy_tagger
from hbr.config import from_dict
from hbr.models.config import TaggerConfig
from hbr.models.files import WeightsError
from hbr.models.importing.tagger import import_tagger
from hbr.models.tagger import Tagger, write_list


@pytest.fixture(scope="module")
def ram(goldens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_tagger.write_ram(tmp_path_factory.mktemp("ram"), goldens)


@pytest.fixture(scope="module")
def dape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_tagger.write_dape(tmp_path_factory.mktemp("dape") / "DAPE.pth")


def build(ram: Path, dape: Path | None = None) -> Tagger:
    config, tensors = import_tagger(ram, dape=dape)
    tagger = Tagger(config)
    tagger.load_state_dict(tensors)
    return tagger.eval()


@pytest.fixture
def images(goldens: Path) -> Tensor:
    return load_file(goldens / "ram" / "io.safetensors")["image_01"]


def published(w: dict[str, Tensor], tokens: Tensor, heads: int) -> Tensor:
    """The logits of RAM's tagging head, from its own weights and projected tokens [b, n, c]."""

    def linear(x: Tensor, name: str) -> Tensor:
        return torch.einsum("...i,oi->...o", x, w[f"{name}.weight"]) + w[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        x = x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-12)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = linear(w["label_embed"], "wordvec_proj").clamp(min=0).expand(len(tokens), -1, -1)
    for i in range(2):
        layer = f"tagging_head.encoder.layer.{i}"
        q, k, v = (
            linear(y, f"{layer}.crossattention.self.{name}").unflatten(-1, (heads, -1))
            for y, name in ((x, "query"), (tokens, "key"), (tokens, "value"))
        )
        scores = torch.einsum("bkhd,bnhd->bhkn", q, k) / math.sqrt(q.shape[-1])
        seen = torch.einsum("bhkn,bnhd->bkhd", scores.softmax(-1), v).flatten(-2)
        y = linear(seen, f"{layer}.crossattention.output.dense")
        x = norm(y + x, f"{layer}.crossattention.output.LayerNorm")
        inner = linear(x, f"{layer}.intermediate.dense")
        inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
        x = norm(linear(inner, f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm")
    return linear(x, "fc").squeeze(-1)


def test_the_tagger_computes_what_the_published_one_does(ram, goldens, images):
    projected = load_file(goldens / "ram" / "io.safetensors")["projected"]
    expected = published(toy_tagger.head(), projected, heads=4)
    got = build(ram)(images)
    assert got.shape == (len(images), len(toy_tagger.TAGS))
    assert torch.allclose(got, torch.sigmoid(expected), atol=1e-5)
    assert got.std() > 0.01  # the toy's tags are told apart


def test_ram_plus_weighs_its_texts_by_the_image(goldens, images, tmp_path):
    """As the published code does it, image by image and tag by tag."""
    file = toy_tagger.write_ram_plus(tmp_path, goldens)
    w = torch.load(file, weights_only=True)["model"]
    projected = load_file(goldens / "ram" / "io.safetensors")["projected"]
    expected = []
    for tokens in projected:
        whole = tokens[0] / tokens[0].norm()
        labels = []
        for texts in w["label_embed"].split(51):
            weights = torch.exp(w["reweight_scale"].exp() * (texts @ whole))
            labels.append((weights[:, None] * texts).sum(dim=0) / weights.sum())
        own = {**w, "label_embed": torch.stack(labels)}
        expected.append(published(own, tokens[None], heads=4)[0])
    tagger = build(file)
    got = tagger(images)
    assert got.shape == (len(images), len(toy_tagger.TAGS))
    assert torch.allclose(got, torch.sigmoid(torch.stack(expected)), atol=1e-5)
    means = torch.stack([texts.mean(dim=0) for texts in w["label_embed"].split(51)])
    unweighed = published({**w, "label_embed": means}, projected, heads=4)
    assert (torch.sigmoid(unweighed) - got).abs().max() > 1e-3  # the weights matter
    assert tagger.tags(images) is not None
    w["label_embed"] = w["label_embed"][:-1]
    torch.save({"model": w}, file)
    with pytest.raises(WeightsError, match=r"254 rows; RAM\+\+ has 51 for each tag"):
        build(file)


def test_tags_are_those_above_their_thresholds_in_the_order_of_the_list(ram, images):
    tagger = build(ram)
    likely = tagger(images)
    expected = [
        tuple(
            name
            for name, p, least in zip(
                toy_tagger.TAGS, row.tolist(), toy_tagger.THRESHOLDS, strict=True
            )
            if p > least
        )
        for row in likely
    ]
    assert tagger.tags(images) == expected
    assert any(expected)
    tagger.list.put(write_list(toy_tagger.TAGS, [0.0] * 5))
    assert tagger.tags(images) == [toy_tagger.TAGS] * len(images)
    tagger.list.put(write_list(toy_tagger.TAGS, [1.0] * 5))
    assert tagger.tags(images) == [()] * len(images)


@pytest.mark.parametrize("wrapped", ["model", "model_state_dict", ""])
def test_the_first_name_of_the_tagging_head_is_known(
    ram: Path, images: Tensor, wrapped: str, tmp_path: Path
) -> None:
    """The published loader takes `vision_multi.*` for `tagging_head.*`, so files have either."""
    whole = torch.load(ram, weights_only=True)["model"]
    named = {name.replace("tagging_head.", "vision_multi."): t for name, t in whole.items()}
    assert named.keys() != whole.keys()
    for file in ram.parent.glob("*.txt"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({wrapped: named} if wrapped else named, tmp_path / ram.name)
    assert torch.equal(build(tmp_path / ram.name)(images), build(ram)(images))


def test_dape_merged_is_base_and_lora(ram, dape, images):
    """In the original layout: y = W x + B A x / r, on the thirds of `qkv` that are q and v."""
    plain, merged = (dict(build(ram, file).state_dict()) for file in (None, dape))
    lora = torch.load(dape, weights_only=True)
    changed = {n for n in plain if not torch.equal(plain[n], merged[n])}
    swin = "encoder.swin.encoder.layers.{}.blocks.{}.attention.{}_proj.weight"
    expected = {swin.format(i, j, x) for i in range(4) for j in range(2) for x in "qv"}
    expected |= {f"layers.{i}.{x}.weight" for i in range(2) for x in ("query", "key")}
    assert changed == expected
    a, b = (lora[f"visual_encoder.layers.1.blocks.1.attn.qkv.lora_{m}"] for m in "AB")
    x = torch.randn(6, a.shape[1])
    for third, name in enumerate("qv"):
        key = swin.format(1, 1, name)
        after_a = x @ a[third * 3 : third * 3 + 3].T  # rank 3
        after_b = after_a @ b[third * 32 : third * 32 + 32].T  # 32 wide
        assert torch.allclose(x @ merged[key].T, x @ plain[key].T + after_b / 3, atol=1e-5)
    a, b = (lora[f"tagging_head.encoder.layer.0.crossattention.self.key.lora_{m}"] for m in "AB")
    x = torch.randn(6, 32)
    key = "layers.0.key.weight"
    assert torch.allclose(x @ merged[key].T, x @ plain[key].T + x @ a.T @ b.T / 3, atol=1e-5)
    assert not torch.allclose(build(ram, dape)(images), build(ram)(images), atol=1e-3)


def test_its_configuration_is_read_off_the_weights(ram):
    lines: list[str] = []
    config, _ = import_tagger(ram, report=lines.append)
    assert config == from_dict(TaggerConfig, toy_tagger.TAGGER)
    assert any("tag_encoder, text_decoder" in line for line in lines)


def test_the_default_is_the_published_size():
    with torch.device("meta"):
        tagger = Tagger(TaggerConfig())
    parts = {n: sum(p.numel() for p in m.parameters()) for n, m in tagger.named_children()}
    # two BERT layers of width 768 without self-attention, keys and values of 512
    attention = 2 * (768 * 768 + 768) + 2 * (512 * 768 + 768)
    mlp = 768 * 3072 + 3072 + 3072 * 768 + 768
    assert parts["layers"] == 2 * (attention + mlp + 4 * 768)
    assert parts["wordvec_proj"] == 512 * 768 + 768
    assert tagger.label_embed.shape == (4585, 512)
    assert not any(p.requires_grad for p in tagger.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_thresholds_stay_exact_in_half_precision(ram, images, dtype):
    tagger = build(ram).to(dtype)
    likely = tagger.probabilities(images)
    assert likely.dtype == torch.float32
    assert tagger(images).dtype == torch.float32
    assert torch.equal(tagger.probabilities(images[:1]), likely[:1])
    rounded = build(ram).to(dtype).float()
    assert torch.equal(rounded(images[:1]), likely[:1])
    least = likely[0].tolist()
    tagger.list.put(write_list(toy_tagger.TAGS, [p - 1e-6 for p in least]))
    assert tagger.tags(images[:1]) == [toy_tagger.TAGS]
    tagger.list.put(write_list(toy_tagger.TAGS, [p + 1e-6 for p in least]))
    assert tagger.tags(images[:1]) == [()]


def test_without_thresholds_one_counts_for_all(ram, tmp_path):
    for name in ("ram.pth", "ram_tag_list.txt"):
        (tmp_path / name).symlink_to(ram.with_name(name))
    lines: list[str] = []
    config, tensors = import_tagger(tmp_path / "ram.pth", report=lines.append)
    tagger = Tagger(config)
    tagger.load_state_dict(tensors)
    assert tagger.list.value == (list(toy_tagger.TAGS), [0.68] * 5)
    assert any("0.68" in line for line in lines)


def broken_ram(ram: Path, folder: Path, change) -> Path:
    for name in ("ram_tag_list.txt", "ram_tag_list_threshold.txt"):
        (folder / name).write_text(ram.with_name(name).read_text())
    tensors = torch.load(ram, weights_only=True)["model"]
    change(tensors)
    torch.save({"model": tensors}, folder / "ram.pth")
    return folder / "ram.pth"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("image_proj.weight"), "image_proj.weight is missing"),
        (lambda t: t.pop("label_embed"), "has no tagger: the weight label_embed is missing"),
        (lambda t: t.pop("fc.bias"), "fc.bias is missing"),
        (
            lambda t: t.pop("tagging_head.encoder.layer.1.crossattention.self.key.bias"),
            "layers.1.key.bias is missing",
        ),
        (lambda t: t.update(surprise=torch.zeros(1)), "no weight surprise"),
        (lambda t: t.update({"fc.weight": torch.zeros(2, 16)}), r"fc.weight is \(2, 16\)"),
    ],
)
def test_a_ram_with_a_wrong_key_names_it(ram, tmp_path, change, message):
    with pytest.raises(WeightsError, match=message) as error:
        import_tagger(broken_ram(ram, tmp_path, change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ram_tag_list.txt", "one\ntwo\n", "has 2 lines; the tagger knows 5 tags"),
        ("ram_tag_list_threshold.txt", "0.5\n" * 4 + "high\n", "'high'"),
        ("ram_tag_list_threshold.txt", "0.5\n" * 6, "has 6 lines"),
        ("ram_tag_list.txt", None, "hbr fetch ram-tags"),
    ],
)
def test_lists_that_do_not_fit(ram, tmp_path, name, text, message):
    file = broken_ram(ram, tmp_path, lambda t: None)
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(text)
    with pytest.raises(WeightsError, match=message) as error:
        import_tagger(file)
    assert name in str(error.value)


def moved(tensors: dict[str, Tensor], level: str) -> dict[str, Tensor]:
    """The LoRA of a block of the first level, on a block of another."""
    block = "visual_encoder.layers.{}.blocks.0.attn.qkv.lora_{}"
    return {block.format(level, m): tensors[block.format("0", m)] for m in "AB"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.clear(), "is not a LoRA of DAPE"),
        (lambda t: t.update(weight=torch.zeros(1)), "weight is not known"),
        (
            lambda t: t.pop("visual_encoder.layers.0.blocks.0.attn.qkv.lora_B"),
            "blocks.0.attn.qkv.lora_B is missing",
        ),
        (
            lambda t: t.update({f"image_proj.lora_{m}": torch.zeros(3, 3) for m in "AB"}),
            "image_proj is not part of a DAPE",
        ),
        (lambda t: t.update(moved(t, "9")), "which RAM does not have"),
        (lambda t: t.update(moved(t, "1")), r"RAM has \(32, 32\)"),
    ],
)
def test_a_dape_that_does_not_fit_names_it(ram, dape, tmp_path, change, message):
    tensors = torch.load(dape, weights_only=True)
    change(tensors)
    torch.save(tensors, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match=message):
        import_tagger(ram, dape=tmp_path / "bad.pth")


def test_a_pickle_with_code_is_refused(ram, tmp_path):
    torch.save({"model": F.relu}, tmp_path / "bad.pth")
    for given in ({"source": tmp_path / "bad.pth"}, {"source": ram, "dape": tmp_path / "bad.pth"}):
        with pytest.raises(WeightsError, match="refused"):
            import_tagger(**given)
