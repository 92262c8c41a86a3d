"""The data set card: Table 1 by the editions of metrics that the paper reports."""

import dataclasses

import numpy as np
import pytest

from hbr.curation.pipeline.passes import ManifestTotals
from hbr.curation.pipeline.stages.zscores import ExactMoments
from hbr.curation.record import Record
from hbr.curation.runs.card import card
from hbr.curation.runs.summary import RunSummary, summarize


def moments(*values: float) -> ExactMoments:
    found = ExactMoments()
    found.add(np.array(values))
    return found


def summary(totals: ManifestTotals) -> RunSummary:
    return summarize("mine", totals, splits=["train"])


def cells(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose heading begins so."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return [rows[0], *rows[2:]]


def test_table_1_has_the_editions_that_the_paper_reports() -> None:
    scores = {
        "pyiqa-niqe": moments(3.0, 4.0),
        "niqe": moments(5.0),
        "pyiqa-brisque": moments(12.5),
        "maniqa": moments(0.7),  # an alias of maniqa-pipal
        "detail": moments(2.0),
    }
    totals = ManifestTotals(scores=scores)
    heads, ours, theirs = cells(card(summary(totals), totals, (512, 512)), "set")
    assert heads[:6] == ["set", "BRISQUE", "NIQE", "CLIPIQA", "MANIQA", "MUSIQ"]
    assert ours[:6] == ["mine", "12.5000", "3.5000", "–", "0.7000", "–"]
    assert theirs[0] == "PERSONA, as published"
    assert theirs[1:6] == ["10.3758", "2.8659", "0.7632", "0.7198", "74.7808"]
    # hbr's own NIQE is another edition: it is not put beside the paper's
    assert heads[6:] == ["detail", "niqe"]
    assert ours[6:] == ["2.0000", "5.0000"]
    assert theirs[6:] == ["–", "–"]


def test_people_are_those_in_the_crops_and_scores_those_of_no_test_set() -> None:
    totals = ManifestTotals(held_out=frozenset({"voc"}))
    rows = [
        Record(
            id=id,
            source=source,
            key=id,
            image_id="0",
            persons=9,
            crop_persons=people,
            scores={"detail": score},
        )
        for id, source, people, score in (
            ("1", "coco", 2, 3.0),
            ("2", "coco", 3, 2.0),
            ("3", "voc", 1, 0.5),
        )
    ]
    totals.add([row.passed("splits", split="train") for row in rows])
    text = card(summary(totals), totals, (512, 512))
    assert "2.00 people in a crop on average (PERSONA: 3.42)." in text
    assert cells(text, "set")[1][-1] == "2.5000"
    assert "Means over all sources but those of a test set" in text


@pytest.mark.parametrize(
    ("n", "category"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (99_999, "10K<n<100K"),
        (1_000_000, "1M<n<10M"),
        (1_000_000_000, "1B<n<10B"),
        (20_000_000, "10M<n<100M"),
        (400_000_000, "100M<n<1B"),
    ],
)
def test_the_size_category_is_one_of_the_hub(n: int, category: str) -> None:
    totals = ManifestTotals()
    of_size = dataclasses.replace(summary(totals), kept=n)
    assert f"size_categories: [{category}]\n" in card(of_size, totals, (512, 512))
