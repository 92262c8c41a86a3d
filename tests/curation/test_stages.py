"""The stages on single images: what each measures, and what it says of what it stops."""

import dataclasses
import io
import math

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageFilter

from hbr.config import ConfigError
from hbr.curation.config import (
    BoxesConfig,
    CropConfig,
    CurationConfig,
    LimitsConfig,
    MetricConfig,
    QualityConfig,
    SharpnessConfig,
    SizeConfig,
    SplitsConfig,
)
from hbr.curation.pipeline.decoding import decode
from hbr.curation.pipeline.loading import load_models
from hbr.curation.pipeline.stages.boxes import PlacedBox, candidates
from hbr.curation.pipeline.stages.duplicates import phash
from hbr.curation.pipeline.stages.measures import MEASURES, clipping, contrast, detail, noise
from hbr.curation.pipeline.stages.overlap import resolve_overlaps
from hbr.curation.pipeline.stages.quality import cheapest_first, judge_quality
from hbr.curation.pipeline.stages.sharpness import judge_sharpness, judge_size, laplacian_variance
from hbr.curation.pipeline.stages.square import crop_pixels, cut_squares
from hbr.curation.record import REASONS, STAGES, Record, count, from_row, funnel, schema, to_row
from hbr.curation.sources.base import Box
from hbr.image import read_photo
from hbr.image.pixels import turn_upright
from hbr.people.grids import turn_box

IMAGE = Record(
    id="0" * 16, source="s", key="k", image_id="1" * 16, image_sha256="2" * 64, width=100, height=80
)
NAN, INF = math.nan, math.inf


def boxes(*edges, **more):
    return [PlacedBox(edges=e, label="person", **more) for e in edges]


def cut(*found, config=None, image=IMAGE):
    return candidates(image, list(found), config or BoxesConfig(score=0.5))


# a: boxes


@pytest.mark.parametrize(
    ("edges", "reason"),
    [
        ((10, 10, 50, 70), None),
        ((-5, -5, 500, 500), None),  # clipped
        ((NAN, 10, 50, 70), "not-a-number"),
        ((10, 10, INF, 70), "not-a-number"),
        ((10, 10, 10, 70), "empty"),
        ((50, 10, 10, 70), "empty"),
        ((100, 10, 150, 70), "outside"),
        ((10, -30, 50, 0), "outside"),
    ],
)
def test_broken_boxes_have_their_reason(edges, reason) -> None:
    (row,) = cut(*boxes(edges))
    assert (row.stage, row.reason) == ("boxes", reason)
    assert reason is None or row.detail
    if reason is None:
        x0, y0, x1, y1 = row.box
        assert 0 <= x0 < x1 <= 100
        assert 0 <= y0 < y1 <= 80
        assert row.box_edge == max(x1 - x0, y1 - y0)


def test_marked_and_unsure_boxes_stop() -> None:
    found = [
        *boxes((0, 0, 9, 9), crowd=True),
        *boxes((1, 0, 9, 9), ignore=True),
        *boxes((2, 0, 9, 9), score=0.4),
        *boxes((3, 0, 9, 9), score=0.6),
    ]
    rows = cut(*found)
    assert [row.reason for row in rows] == ["group", "ignored", "unsure", None]
    assert {row.persons for row in rows} == {3}


def test_people_in_the_crop_are_not_those_in_the_photo() -> None:
    """PERSONA's 3.4154 people are those in its images, which are crops."""
    found = [
        *boxes((0, 0, 30, 40)),  # cut out
        *boxes((10, 10, 20, 40)),  # wholly in it
        *boxes((25, 0, 45, 40)),  # three quarters of it in the square of the first
        *boxes((34, 0, 64, 40)),  # a fifth
        *boxes((70, 0, 100, 40)),  # elsewhere
        *boxes((0, 0, 40, 40), crowd=True),  # a group counts once, as in the photo
        *boxes((5, 5, 9, 9), ignore=True),
    ]
    rows = cut_squares(cut(*found), CropConfig())
    square = {row.box: row for row in rows if row.square_side is not None}
    first = square[0, 0, 30, 40]
    assert first.square == (0, 0, 40)
    assert first.persons == 6
    assert first.crop_persons == 4
    assert square[70, 0, 100, 40].crop_persons == 1
    # someone who fills the crop of a smaller person counts
    rows = cut_squares(cut(*boxes((0, 0, 90, 80)), *boxes((40, 30, 50, 40))), CropConfig())
    assert {row.square_side: row.crop_persons for row in rows} == {80: 2, 10: 2}
    partial = CropConfig(mode="partial")
    (alone,) = cut_squares(cut(*boxes((40, 0, 50, 80))), partial)
    assert (alone.square_side, alone.crop_persons) == (10, 1)


def test_one_kind_of_box_counts() -> None:
    both = [*boxes((0, 0, 9, 9), kind="full"), *boxes((0, 0, 9, 5), kind="visible")]
    heads = boxes((0, 0, 3, 3), kind="head")
    assert [r.box_kind for r in cut(*both, *heads)] == ["visible"]
    config = BoxesConfig(kinds=("full", "visible"))
    assert [r.box_kind for r in cut(*both, *heads, config=config)] == ["full"]
    (row,) = cut(*heads)
    assert row.reason == "no-people"


def test_ids_do_not_depend_on_the_order_of_boxes() -> None:
    found = boxes((0, 0, 9, 9), (0, 0, 9, 9), (1, 2, 30, 40), (NAN, 0, 1, 1))
    ids = [row.id for row in cut(*found)]
    assert len(set(ids)) == 4
    assert [row.id for row in cut(*found[::-1])] == ids


# decoding: orientation, and boxes that turn with it


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_the_pixels(orientation: int) -> None:
    pixels = np.zeros((6, 9), np.uint8)
    pixels[1:3, 4:9] = 1
    x0, y0, x1, y1 = map(int, turn_box((4, 1, 9, 3), 9, 6, orientation))
    turned = turn_upright(pixels, orientation)
    assert turned[y0:y1, x0:x1].all()
    assert turned.sum() == (y1 - y0) * (x1 - x0)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_box_is_found_in_a_turned_photo(photo_file, orientation: int, rotation: int) -> None:
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[8:24, 40:88] = 255
    exif = Image.Exif()
    exif[274] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, exif=exif)
    decoded = decode(buffer.getvalue(), "x.jpg", rotation=rotation, max_pixels=10_000)
    assert decoded.stored == (90, 60)
    whole = Box(40 / 90, 8 / 60, 88 / 90, 24 / 60, label="person", normalised=True)
    for box in (Box(40, 8, 88, 24, label="person"), whole):
        x0, y0, x1, y1 = (round(v) for v in decoded.place(box, turned=False))
        assert decoded.pixels[y0:y1, x0:x1].min() > 200
    outside = decoded.pixels.astype(int).sum() - decoded.pixels[y0:y1, x0:x1].astype(int).sum()
    assert outside < 0.05 * pixels.astype(int).sum()
    corners = Box(0, 0, 1, 1, label="person", keypoints=(40, 8, 2, 88, 24, 1, *[5, 5, 0] * 15))
    ax, ay, a, bx, by, b, *rest = decoded.place_keypoints(corners, turned=False)
    assert (sorted((ax, bx)), sorted((ay, by)), a, b) == ([x0, x1], [y0, y1], 2, 1)
    assert rest == [0] * 45
    assert decoded.place_keypoints(whole, turned=False) is None
    # the same box, counted on the grid that EXIF leads to
    upright = Box(*turn_box((40, 8, 88, 24), 90, 60, orientation), label="person")
    assert decoded.place(upright, turned=True) == decoded.place(
        Box(40, 8, 88, 24, label="person"), turned=False
    )
    assert decoded.counts_as(90, 60) is False
    assert decoded.counts_as(60, 90) is (True if orientation > 4 else None)
    assert decoded.counts_as(91, 60) is None
    assert decoded.counts_as(None, None) is False


def test_pixels_are_those_of_read_photo(photos, photo_file) -> None:
    files = [image.ref.read_bytes() for image in photos[:12]]
    files += [photo_file(1, format="PNG", mode="LA"), photo_file(2, mode="CMYK")]
    for data in files:
        expected = read_photo(io.BytesIO(data))
        found = decode(data, "x", max_pixels=10**7).pixels
        if expected.alpha is None:
            assert np.array_equal(found, expected.pixels)
        assert found.dtype == np.uint8


# b and c: sharpness and size


def test_sharpness_falls_with_blur_and_not_with_size(photos) -> None:
    image = Image.open(photos[0].ref.path).convert("L").resize((1024, 1024))
    values = [
        laplacian_variance(np.asarray(image.filter(ImageFilter.GaussianBlur(r)))) for r in (0, 1, 3)
    ]
    assert values[0] > 2 * values[1] > 4 * values[2]
    twice = np.asarray(image.resize((2048, 2048), Image.Resampling.NEAREST))
    assert laplacian_variance(twice, 512) == pytest.approx(
        laplacian_variance(np.asarray(image), 512), rel=0.02
    )


def test_the_laplacian_by_hand() -> None:
    grey = np.zeros((5, 5), np.uint8)
    grey[2, 2] = 10  # gives −40 once and 10 four times
    values = [-40] + [10] * 4 + [0] * 20
    assert laplacian_variance(grey) == pytest.approx(np.var(values))


def test_a_sharp_person_before_a_blurred_place(photo_file) -> None:
    sharp = Image.open(io.BytesIO(photo_file(3, (100, 80)))).convert("L")
    grey = np.asarray(sharp.filter(ImageFilter.GaussianBlur(4))).copy()
    grey[10:70, 10:50] = np.asarray(sharp)[10:70, 10:50]
    rows = cut(*boxes((10, 10, 50, 70), (55, 5, 95, 75)))
    config = SharpnessConfig(threshold=200, region="box")
    judged = judge_sharpness(rows, grey, config)
    assert [row.reason for row in judged] == [None, "blurred"]
    whole = judge_sharpness(rows, grey, SharpnessConfig(threshold=0, region="image"))
    assert len({row.sharpness for row in whole}) == 1
    sized = judge_size(judge_sharpness(rows, grey, SharpnessConfig(0)), SizeConfig(65, 0))
    assert [row.reason for row in sized] == ["small", None]
    assert sized[0].detail == "longer edge 60 below 65"


# d and e: square, crowds, pixels


def test_the_head_of_someone_too_tall_stays() -> None:
    image = dataclasses.replace(IMAGE, width=60, height=100)
    rows = cut(*boxes((10, 5, 50, 95)), image=image)
    (row,) = cut_squares(rows, CropConfig(narrow="shrink"))
    assert row.square == (0, 5, 60)
    (row,) = cut_squares(rows, CropConfig(narrow="reject"))
    assert row.reason == "no-square"
    (row,) = cut_squares(rows, CropConfig(narrow="edge"))
    assert row.square == (-15, 5, 90)


def test_parts_of_people_of_some_sources() -> None:
    rows = cut(*boxes((10, 5, 30, 75), (40, 30, 90, 50)))
    whole = [r.square[2] for r in cut_squares(rows, CropConfig(partial=("other",)))]
    parts = [r.square for r in cut_squares(rows, CropConfig(partial=("s",)))]
    assert whole == [70, 50]
    assert parts == [(10, 5, 20), (55, 30, 20)]  # the head of who stands, the middle of who lies


def test_padding_repeats_and_mirrors() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (32, 8, 3), np.uint8)
    edge = crop_pixels(pixels, -4, 8, 16, CropConfig(narrow="edge", edge=16))
    assert np.array_equal(edge[:, 4:12], pixels[8:24])
    assert (edge[:, :4] == pixels[8:24, :1]).all()
    mirrored = crop_pixels(pixels, -4, 8, 16, CropConfig(narrow="reflect", edge=16))
    assert np.array_equal(mirrored[:, :4], pixels[8:24, 3::-1])


def test_resizing_is_antialiased() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    small = crop_pixels(stripes, 0, 0, 256, CropConfig(edge=64))
    assert small[:, 4:-4].std() < 3
    assert abs(small.mean() - 127.5) < 1


def test_crowds_stop_before_they_suppress() -> None:
    image = dataclasses.replace(IMAGE, width=400, height=100)
    # three who stand in each other's way in the middle, one beside them, one far away
    found = [(180, 20, 220, 90), (185, 20, 225, 90), (190, 20, 230, 90), (175, 20, 215, 90)]
    found += [(230, 20, 280, 90), (340, 20, 390, 90)]
    rows = cut_squares(cut(*boxes(*found), image=image), CropConfig())
    out = {row.box[0]: row.reason for row in resolve_overlaps(rows, CropConfig(crowd_people=2))}
    assert out == {175: "crowded", 180: "crowded", 185: "crowded", 190: "crowded", 230: None,
                   340: None}  # fmt: skip
    out = {
        row.box[0]: row.reason
        for row in resolve_overlaps(rows, CropConfig(crowd_people=9, overlap=0.2))
    }
    assert out[180] is None  # 200 is the middle
    assert {out[x] for x in (175, 185, 190)} == {"overlapping"}


# f: measures and metrics


def test_measures_know_good_from_bad(photos) -> None:
    image = Image.open(photos[0].ref.path).convert("RGB").resize((512, 512))
    crop = np.asarray(image)
    rng = np.random.default_rng(0)
    noisy = np.clip(crop + rng.normal(0, 12, crop.shape), 0, 255).astype(np.uint8)
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(3)))
    burnt = np.clip(crop.astype(int) * 3, 0, 255).astype(np.uint8)
    assert detail(blurred) < detail(crop) - 0.5
    assert noise(noisy) > noise(crop) + 5
    assert clipping(burnt) > clipping(crop) + 0.1
    assert contrast((crop // 4 + 96).astype(np.uint8)) < contrast(crop) / 3


def test_noise_is_in_grey_levels() -> None:
    rng = np.random.default_rng(0)
    flat = 128 + rng.normal(0, 5, (512, 512, 1)).round()
    found = noise(np.repeat(flat, 3, axis=2).astype(np.uint8))
    assert 4 < found < 5.2  # the smoothest tenth of the blocks of a noise of 5


def rows_and_crops(n: int):
    rng = np.random.default_rng(0)
    rows = [Record(id=f"{i:016x}", source="s", key=str(i), image_id="0" * 16) for i in range(n)]
    crops = [rng.integers(0, 40 * i + 10, (32, 32, 3), np.uint8) for i in range(n)]
    return rows, crops


@pytest.mark.parametrize("all_scores", [False, True])
def test_dear_metrics_see_what_the_cheap_ones_leave(all_scores: bool) -> None:
    config = QualityConfig(
        metrics=(MetricConfig("noise"), MetricConfig("contrast", 20.0)), all_scores=all_scores
    )
    whole = CurationConfig(quality=config)
    assert [m.name for m in cheapest_first(config.metrics)] == ["contrast", "noise"]
    rows, crops = rows_and_crops(5)
    seen: dict[str, int] = {}
    out = judge_quality(
        rows, crops, load_models(whole).scorers, whole, lambda name, n, _: seen.update({name: n})
    )
    passed = [contrast(crop) >= 20 for crop in crops]
    assert [row.alive for row in out] == passed
    assert 0 < sum(passed) < 5
    assert seen == {"contrast": 5, "noise": 5 if all_scores else sum(passed)}
    for row, crop, ok in zip(out, crops, passed, strict=True):
        assert row.scores["contrast"] == contrast(crop)
        assert ("noise" in row.scores) == (ok or all_scores)
        assert ok or "contrast" in row.detail


def test_a_metric_of_the_table(monkeypatch) -> None:
    """Batches are filled up, and colours come as RGB in [0, 1]."""
    import torch

    import hbr.metrics
    import hbr.metrics.table

    shapes = []

    class Red:
        def __call__(self, image, reference=None):
            shapes.append(tuple(image.shape))
            return image[:, 0].mean(dim=(1, 2)).double()

    info = next(iter(hbr.metrics.table.METRICS.values()))
    monkeypatch.setattr(hbr.metrics.table, "find_metric", lambda name: info)
    monkeypatch.setattr(hbr.metrics, "load_metric", lambda name, device: Red(), raising=False)
    config = QualityConfig(metrics=(MetricConfig("red", 0.3),), batch=4)
    rows, crops = rows_and_crops(6)
    whole = CurationConfig(quality=config)
    out = judge_quality(rows, crops, load_models(whole).scorers, whole, lambda *_: None)
    assert shapes == [(4, 3, 32, 32)] * 2
    for row, crop in zip(out, crops, strict=True):
        red = float(torch.from_numpy(crop[..., 0].copy()).double().mean() / 255)
        assert row.scores["red"] == pytest.approx(red, abs=1e-6)


def test_each_source_has_thresholds_and_ceilings_of_its_own() -> None:
    metrics = (MetricConfig("contrast", 20.0), MetricConfig("noise", 10.0))
    quality = QualityConfig(metrics=metrics, all_scores=True)
    low = LimitsConfig(
        metrics=(MetricConfig("contrast", ceiling=20.0), MetricConfig("noise", None, 10.0))
    )
    config = CurationConfig(quality=quality, limits={"low": low, "any": LimitsConfig(metrics=())})
    rows, crops = rows_and_crops(6)
    told = {}
    for source in ("s", "low", "any"):
        mine = [dataclasses.replace(row, source=source) for row in rows]
        told[source] = judge_quality(
            mine, crops, load_models(config).scorers, config, lambda *_: None
        )
    assert all(row.alive for row in told["any"])
    for row, other in zip(told["s"], told["low"], strict=True):
        a, b = row.scores["contrast"], row.scores["noise"]
        assert row.alive == (a >= 20 and b <= 10)
        assert other.alive == (a <= 20 and b >= 10)  # less noise is better, so too clean stops
        assert other.alive or (other.reason == "above-ceiling" and other.scores == row.scores)
    details = {row.detail for row in told["low"] if not row.alive}
    assert any(d.startswith("contrast") and " above 20" in d for d in details)
    assert any(d.startswith("noise") and " below 10" in d for d in details)


def test_photos_may_be_too_sharp() -> None:
    grey = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    row = dataclasses.replace(IMAGE, x0=0.0, y0=0.0, x1=64.0, y1=64.0)
    value = laplacian_variance(grey)
    for ceiling, reason in ((value + 1, None), (value - 1, "sharp")):
        (out,) = judge_sharpness([row], grey, SharpnessConfig(0, ceiling=ceiling))
        assert out.reason == reason
        assert out.sharpness == value


def test_measures_have_a_side() -> None:
    assert {name: m.better for name, m in MEASURES.items()} == {
        "detail": "higher",
        "noise": "lower",
        "contrast": "higher",
        "clipping": "lower",
    }


# h: perceptual hashes


def test_hashes_are_near_for_the_same_picture_only(photos) -> None:
    crops, changed = [], []
    for image in photos[:24]:
        picture = Image.open(image.ref.path).convert("RGB").resize((512, 512))
        buffer = io.BytesIO()
        picture.resize((200, 200)).save(buffer, "JPEG", quality=60)
        crops.append(phash(np.asarray(picture)))
        changed.append(phash(np.asarray(Image.open(buffer).resize((512, 512)))))
    same = [(a ^ b).bit_count() for a, b in zip(crops, changed, strict=True)]
    other = [(a ^ b).bit_count() for i, a in enumerate(crops) for b in crops[:i]]
    assert max(same) <= 6
    assert min(other) > 6


def test_hash_agrees_with_imagehash(photos) -> None:
    """It shrinks by area, imagehash by Lanczos: a few bits of 64 differ."""
    for image in photos[:12]:
        picture = Image.open(image.ref.path).convert("RGB").resize((512, 512))
        bits = np.packbits(imagehash.phash(picture).hash).tobytes()
        ours = phash(np.asarray(picture))
        assert (int.from_bytes(bits, "big") ^ ours).bit_count() <= 6


# records and their funnel


def test_records_survive_a_table() -> None:
    import pyarrow as pa

    points = tuple(map(float, range(51)))
    record = IMAGE.passed("quality", scores={"niqe": 3.5}, tags=("hat", "tree"), x0=0.1)
    record = record.passed("quality", keypoints=points)
    table = pa.Table.from_pylist(
        [to_row(record), to_row(IMAGE)], schema=schema(["brisque", "niqe"])
    )
    rows = table.to_pylist()
    assert from_row(rows[0]) == record
    assert from_row(rows[1]) == IMAGE
    assert rows[0]["score_niqe"] == 3.5
    assert rows[0]["score_brisque"] is None
    assert table.schema.field("tags").type == pa.list_(pa.string())
    assert not table.schema.field("id").nullable
    assert table.schema.field("keypoints").type == pa.list_(pa.float64())
    assert set(schema([]).names) - set(schema([], keypoints=False).names) == {"keypoints"}


def test_the_funnel_adds_up() -> None:
    rows = [
        IMAGE.stopped("read", "missing", ""),
        IMAGE.stopped("boxes", "empty", ""),
        IMAGE.stopped("boxes", "empty", ""),
        IMAGE.stopped("quality", "below-threshold", ""),
        IMAGE.passed("splits", split="train"),
    ]
    steps = funnel(count(rows))
    assert [step.stage for step in steps] == list(STAGES)
    assert [(s.entered, s.passed) for s in steps[:3]] == [(5, 4), (4, 2), (2, 2)]
    assert steps[-1].passed == 1
    for step in steps:
        assert step.entered == step.passed + sum(step.stopped.values())
        assert set(step.stopped) <= set(REASONS[step.stage])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SplitsConfig({"train": 0.9, "val": 0.2}), "parts"),
        (lambda: QualityConfig(metrics=(MetricConfig("a"), MetricConfig("a"))), "metrics"),
        (lambda: QualityConfig(metrics=(MetricConfig("a"),), eq1=("b",)), "eq1"),
        (lambda: QualityConfig(metrics=(MetricConfig("a"),), eq1=()), "eq1"),
        (lambda: SharpnessConfig(100, ceiling=50), "ceiling"),
        (lambda: LimitsConfig(count=0), "count"),
        (
            lambda: CurationConfig(limits={"a": LimitsConfig(metrics=(MetricConfig("b"),))}),
            r"limits\.a\.metrics",
        ),
        (lambda: CropConfig(margin=0.0), "margin"),
        (lambda: CurationConfig(tagger="no colon"), "tagger"),
        (lambda: CurationConfig(errors=2), "errors"),
        (lambda: CurationConfig(name="../up"), "name"),
    ],
)
def test_configurations_check_themselves(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
