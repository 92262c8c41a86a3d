"""Which edition of LQ files lies in a folder."""

from pathlib import Path

import pytest

from hbr.config import ConfigError
from hbr.evaluation.editions import hash_files, identify, read_checksums, write_checksums
from hbr.files import sha256

ONE = {"a.png": "0" * 64, "b.png": "1" * 64}
OTHER = {"a.png": "0" * 64, "b.png": "2" * 64}


@pytest.mark.parametrize(
    ("hashes", "editions", "name", "comparable", "said"),
    [
        (ONE, {"one": ONE, "other": OTHER}, "one", True, "all 2 LQ files are those of"),
        (OTHER, {"one": ONE, "other": OTHER}, "other", False, "not of 'one', which the paper's"),
        (ONE, {}, None, False, "no checksums were given"),
        (ONE, {"other": OTHER}, None, False, "no checksums were given"),
        (OTHER, {"one": ONE}, None, False, "which has 2: 1 differ (first b.png)"),
        ({"a.png": "0" * 64}, {"one": ONE}, None, False, "1 are missing (first b.png)"),
        ({**ONE, "c.png": "3" * 64}, {"one": ONE}, None, False, "1 are not in it (first c.png)"),
    ],
)
def test_identify(
    hashes: dict[str, str],
    editions: dict[str, dict[str, str]],
    name: str | None,
    comparable: bool,
    said: str,
) -> None:
    found = identify(hashes, editions, "one")
    assert (found.name, found.comparable) == (name, comparable)
    assert said in found.status


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "sub" / "ä b.png"
    file.parent.mkdir()
    file.write_bytes(b"x")
    hashes = hash_files({"sub/ä b": file}, tmp_path)
    assert hashes == {"sub/ä b.png": sha256(file)}
    write_checksums({**hashes, **ONE}, tmp_path / "sums")
    assert read_checksums(tmp_path / "sums") == {**hashes, **ONE}
    # as `sha256sum -b ./*` writes it
    (tmp_path / "binary").write_text(f"{'0' * 64} *./a.png\n")
    assert read_checksums(tmp_path / "binary") == {"a.png": "0" * 64}


def test_the_checksum_of_all_depends_on_names_and_hashes() -> None:
    sums = {identify(hashes, {}, "").checksum for hashes in (ONE, OTHER, {"a.png": "0" * 64})}
    assert len(sums) == 3
    assert identify(dict(reversed(ONE.items())), {}, "").checksum in sums


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "holds no checksums"), ("hello\n", "line 1 is not a checksum"), ("\xff", "not text")],
)
def test_a_file_of_something_else(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "sums").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=said):
        read_checksums(tmp_path / "sums")
    with pytest.raises(ConfigError, match="No such file"):
        read_checksums(tmp_path / "none")
