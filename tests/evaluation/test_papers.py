"""The papers' numbers: those beside the project, and which of ours are compared with which."""

import json
from importlib.resources import files
from pathlib import Path

import pytest

from hbr.config import ConfigError
from hbr.evaluation.papers import paper_table, paper_tables, tolerance_of

COUNTS = {
    "osdhuman.table1_datasets": 8 * 5,
    "osdhuman.table2_methods": 10 * (9 + 4),
    "osdhuman.table3_training_sets": 2 * (9 + 4),
    "osdhuman.table4_prompt_extractors": 4 * 4,
    "diffbody.table1_methods": 6 * 4,  # LPIPS, as printed, is no target
    "haodiff.table1_persona_val": 10 * 9,  # without steps and seconds
    "haodiff.table2_real_world": 10 * (5 + 5),  # without HMB-R
    "lcudiff.table1_persona_val": 11 * 8,  # without HyperIQA and TRES
    "lcudiff.table2_mpii_test": 11 * 2,
}


def test_the_shipped_numbers_are_those_beside_the_project(shared: Path) -> None:
    ours = files("hbr.evaluation").joinpath("paper_tables.json").read_text(encoding="utf-8")
    theirs = (shared / "reference" / "paper_tables.json").read_text(encoding="utf-8")
    assert json.loads(ours) == json.loads(theirs)


def test_every_number_is_found() -> None:
    assert {name: len(paper_table(name).values) for name in paper_tables()} == COUNTS


@pytest.mark.parametrize(
    ("table", "method", "data_set", "metric", "value"),
    [
        ("osdhuman.table1_datasets", "pictures", "PERSONA", "niqe", 2.8659),
        ("osdhuman.table1_datasets", "pictures", "PERSONA", "pyiqa-niqe", 2.8659),
        ("osdhuman.table2_methods", "OSDHuman", "PERSONA-Val", "lpips-vgg", None),
        ("osdhuman.table2_methods", "OSDHuman", "PERSONA-Val", "psnr-y", 22.41),
        ("osdhuman.table2_methods", "OSEDiff*", "PERSONA-Test", "maniqa-pipal", 0.7052),
        ("osdhuman.table2_methods", "OSDHuman", "PERSONA-Test", "psnr-y", None),
        ("osdhuman.table2_methods", "OSDHuman", "PERSONA-Val", "gmsd", None),
        ("osdhuman.table2_methods", "nano", "PERSONA-Val", "psnr-y", None),
        ("osdhuman.table3_training_sets", "LSDIR", "PERSONA-Val", "psnr-y", 22.51),
        ("osdhuman.table4_prompt_extractors", "HFIE, LQ", "PERSONA-Test", "musiq", 73.7694),
        ("osdhuman.table4_prompt_extractors", "null", "PERSONA-Test", "niqe", 5.0651),
        ("diffbody.table1_methods", "DiffBody", "DiffBody-Test", "ssim-y", 0.8446),
        ("haodiff.table1_persona_val", "HAODiff", "PERSONA-Val", "fid", 8.3623),
        ("haodiff.table1_persona_val", "HAODiff", "PERSONA-Val", "fid-clean", 8.3623),
        ("haodiff.table1_persona_val", "HAODiff", "PERSONA-Val", "topiq-fr", 0.5161),
        ("haodiff.table1_persona_val", "HAODiff", "PERSONA-Val", "topiq", None),
        ("lcudiff.table1_persona_val", "HAODiff", "PERSONA-Val", "topiq", 0.6712),
        ("lcudiff.table1_persona_val", "HAODiff", "PERSONA-Val", "topiq-fr", None),
        ("lcudiff.table1_persona_val", "ResShift", "PERSONA-Val", "psnr-rgb", 21.31),
        ("lcudiff.table1_persona_val", "ResShift", "PERSONA-Val", "psnr-y", 23.16),
        ("lcudiff.table1_persona_val", "ResShift", "PERSONA-Val", "ssim-rgb", 0.6283),
        ("lcudiff.table1_persona_val", "LCUDiff", "PERSONA-Val", "dists", 0.1022),
        ("lcudiff.table1_persona_val", "LCUDiff", "PERSONA-Val", "lpips-alex", 0.2149),
        ("lcudiff.table2_mpii_test", "LCUDiff", "MPII-Test", "topiq", 0.6833),
        ("haodiff.table2_real_world", "InvSR", "PERSONA-Test", "maniqa-pipal", 0.7122),
        ("haodiff.table2_real_world", "HAODiff", "PERSONA-Test", "ilniqe", 21.9784),
        ("haodiff.table2_real_world", "HAODiff", "MPII-Test", "niqe", 3.945),
    ],
)
def test_cells(table: str, method: str, data_set: str, metric: str, value: float | None) -> None:
    assert paper_table(table).value(method, data_set, metric) == value


def test_tables_that_print_the_same_runs_agree() -> None:
    """A number that is misread in one of them would differ; what was measured again is named."""
    osdhuman, haodiff, real, lcudiff, mpii = (
        paper_table(name).values
        for name in (
            "osdhuman.table2_methods",
            "haodiff.table1_persona_val",
            "haodiff.table2_real_world",
            "lcudiff.table1_persona_val",
            "lcudiff.table2_mpii_test",
        )
    )
    again = {key for key in real.keys() & osdhuman.keys() if real[key] != osdhuman[key]}
    assert {method for method, _, _ in again} == {"SeeSR"}
    assert len(real.keys() & osdhuman.keys()) == 7 * 3
    again = {key for key in lcudiff.keys() & haodiff.keys() if lcudiff[key] != haodiff[key]}
    assert {method for method, _, _ in again} == {"HAODiff"}
    assert len(lcudiff.keys() & haodiff.keys()) == 10 * 3
    assert {key: real[key] for key in real.keys() & mpii.keys()} == {
        key: mpii[key] for key in real.keys() & mpii.keys()
    }
    assert len(real.keys() & mpii.keys()) == 10


def test_columns_that_hbr_does_not_measure_are_told(tmp_path: Path) -> None:
    blur = paper_table("haodiff.table2_real_world").not_measured
    assert list(blur) == [("MPII-Test", "HMB-R")]
    assert blur["MPII-Test", "HMB-R"]["HAODiff"] == 0.0929
    assert blur["MPII-Test", "HMB-R"]["OSDHuman"] == 0.3433
    more = paper_table("lcudiff.table2_mpii_test").not_measured
    assert more["MPII-Test", "HyperIQA"]["LCUDiff"] == 0.6797
    assert more["MPII-Test", "TRES"]["LCUDiff"] == 89.8133
    assert not paper_table("osdhuman.table2_methods").not_measured


def test_a_table_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match=r"'osdhuman.table9'; known: osdhuman.table1_datasets"):
        paper_table("osdhuman.table9")


def test_tolerances() -> None:
    assert tolerance_of("psnr-y", 22.41) == 0.05
    assert tolerance_of("musiq", 70.0) == pytest.approx(0.7)
    assert tolerance_of("psnr-y", 22.41, {"psnr-y": 1.0}) == 1.0


def test_the_pages_say_of_the_papers_tables_what_these_compare() -> None:
    """Table 3 of OSDHuman is LSDIR against PERSONA; table 4 is prompts, and neither is VSD."""
    assert set(paper_table("osdhuman.table3_training_sets").methods) == {"LSDIR", "PERSONA"}
    docs = Path(__file__).parents[2] / "docs"
    named = 0
    for page in sorted(docs.glob("*.md")):
        for line in page.read_text(encoding="utf-8").splitlines():
            if "table 3" in line.lower() and "ablation" not in line:
                named += 1
                assert "LSDIR" in line, f"{page.name}: {line}"
    assert named >= 2
