import gc
import sys

import pytest

from hbr.lazy import importing


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "defines_much.py").write_text("things = [[n] for n in range(100_000)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "defines_much"
    sys.modules.pop("defines_much", None)
    gc.unfreeze()


def test_a_module_is_imported_without_the_garbage_collector(module):
    before = gc.get_freeze_count()
    with importing(module):
        assert not gc.isenabled()
        import defines_much
    assert gc.isenabled()
    assert gc.get_freeze_count() - before >= len(defines_much.things)
    frozen = gc.get_freeze_count()
    with importing(module):
        assert gc.isenabled()
    assert gc.get_freeze_count() <= frozen


def test_an_import_that_fails_leaves_the_garbage_collector_as_it_was(module):
    before = gc.get_freeze_count()
    with pytest.raises(ImportError), importing(module):
        raise ImportError
    assert gc.isenabled()
    assert gc.get_freeze_count() == before
    gc.disable()
    try:
        with importing(module):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
