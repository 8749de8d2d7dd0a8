"""The clock of imports: every import of one package counts, whoever asks, and one within another counts once."""

import importlib
import sys
import time

import pytest

from harness.machine.imports import ImportClock

SLEEP_S = 0.02
NAP = f"import time; time.sleep({SLEEP_S})\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `napping` whose import takes twice SLEEP_S, as it imports `napping.inner`; `napping.late` is not."""
    folder = tmp_path / "napping"
    folder.mkdir()
    (folder / "__init__.py").write_text(f"{NAP}from napping import inner\n")
    (folder / "inner.py").write_text(NAP)
    (folder / "late.py").write_text(NAP)
    (folder / "broken.py").write_text("raise ImportError('no library')\n")
    (tmp_path / "other_napping.py").write_text(NAP)
    monkeypatch.syspath_prepend(str(tmp_path))
    finders = list(sys.meta_path)
    yield "napping"
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name.partition(".")[0] in ("napping", "other_napping")]:
        del sys.modules[name]


def test_an_import_is_timed_with_all_that_it_imports_and_counts_once(package):
    clock = ImportClock(package)
    assert clock.total_ns is None, "nothing was imported yet: there is no time, and no 0 either"
    started = time.perf_counter_ns()
    importlib.import_module(package)
    elapsed = time.perf_counter_ns() - started
    assert 2 * SLEEP_S * 1e9 <= clock.total_ns <= elapsed
    whole = clock.total_ns
    importlib.import_module(package)
    assert clock.total_ns == whole, "a module that is there already costs nothing"
    importlib.import_module("napping.late")
    assert clock.total_ns >= whole + SLEEP_S * 1e9, "a submodule that is imported later is added"


def test_other_packages_and_modules_that_are_not_there_are_none_of_its_business(package):
    clock = ImportClock(package)
    importlib.import_module("other_napping")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("napping_not_there")
    assert clock.total_ns is None


def test_an_import_that_fails_fails_as_without_the_clock_and_the_clock_goes_on(package):
    clock = ImportClock(package)
    with pytest.raises(ImportError, match="no library"):
        importlib.import_module("napping.broken")
    before = clock.total_ns
    importlib.import_module("napping.late")
    assert clock.total_ns > before


def test_tools_that_come_with_a_package_can_be_left_out_and_the_package_not(package):
    clock = ImportClock(package)
    with clock.package_alone():
        importlib.import_module("napping.late")  # imports `napping` first
        of_package = clock.total_ns
        assert of_package >= 2 * SLEEP_S * 1e9
        del sys.modules["napping.late"]
        importlib.import_module("napping.late")
    assert clock.total_ns == of_package
    del sys.modules["napping.late"]
    importlib.import_module("napping.late")
    assert clock.total_ns > of_package
