"""The machinery of the repairs; what each repair does is tested in ``tests/_standins``."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch
from compat_help import run

from recbole_ext import compat


def test_every_repair_says_what_it_is_for_and_when_it_can_go() -> None:
    for repair in compat.REPAIRS:
        assert repair.title and repair.versions and repair.remove_when and repair.modules
        assert (repair.after is None) != (repair.during is None), repair


def test_every_break_and_bug_has_its_repair() -> None:
    ids = {one for repair in compat.REPAIRS for one in repair.id.split(", ")}
    assert ids == {f"B{number}" for number in range(1, 17)} | {"U1", "U2", "U7"}


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = {"torch", "pandas", "numpy", "scipy", "sklearn", "recbole", "ray"}
    assert run(f"import recbole_ext, sys; print({heavy} & set(sys.modules))") == "set()"


def test_all_repairs_are_applied_or_not_needed() -> None:
    assert "applied" in {what for _, what in compat.settle()}
    for repair, what in compat.status():
        assert what == "applied" or what.startswith("not needed"), (repair.id, what)


def test_applying_again_changes_nothing() -> None:
    compat.settle()
    from recbole.data.dataset.dataset import Dataset, ensure_dir

    def state() -> tuple:
        patched = torch.load, pd.Series.agg, Dataset._download, ensure_dir
        return len(sys.meta_path), patched, compat.status()

    before = state()
    compat.apply()
    assert state() == before


def test_recbole_need_not_be_installed() -> None:
    out = run(
        """
        from recbole_ext import compat
        outcomes = compat.settle()
        print(all("No module named 'recbole'" in what for repair, what in outcomes
                  if repair.modules[0].startswith("recbole")))
        """,
        without="recbole",
    )
    assert out == "True"


def test_modules_that_were_imported_before_are_mended_too() -> None:
    out = run("""
        import recbole.data.interaction, recbole.utils.utils
        import recbole.data.dataset.dataset as module, recbole.evaluator.collector
        import recbole_ext, tempfile
        module.ensure_dir(tempfile.gettempdir())
        print(module.ensure_dir.__module__, module.Dataset._download.__code__.co_filename)
        outcomes = recbole_ext.compat.status()
        print([what for repair, what in outcomes if repair.id in ("U1", "U2", "B3")])
    """)
    first, second = out.splitlines()
    assert first.startswith("recbole_ext.") and "recbole_ext" in first.split()[1]
    assert second == "['applied', 'applied', 'applied']"


def test_a_module_keeps_its_loader_spec_and_source() -> None:
    from recbole.evaluator import collector

    spec = importlib.util.find_spec("recbole.evaluator.collector")
    assert spec is not None and spec.origin == collector.__file__
    assert "class Collector" in inspect.getsource(collector)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that a repair waits for, not yet imported."""
    name = "recbole_ext_test_patient"
    (tmp_path / f"{name}.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    for finder in sys.meta_path:
        if isinstance(finder, compat.ImportHook):
            monkeypatch.setattr(finder, "modules", {*finder.modules, name})
    return name


def make(name: str, **parts: object) -> compat.Repair:
    return compat.Repair("X1", "title", "versions", "never", (name,), **parts)  # type: ignore[arg-type]


def test_a_repair_runs_on_the_import_of_its_module_and_only_if_needed(
    watched: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def after(module: ModuleType) -> None:
        seen.append(module.value)

    wanted = make(watched, after=after)
    unwanted = make(watched, after=after, needed=lambda: False)
    monkeypatch.setattr(compat, "REPAIRS", [wanted, unwanted])
    assert [what for _, what in compat.status()] == ["waiting", "waiting"]
    __import__(watched)
    assert seen == [1]
    assert [what for _, what in compat.status()] == ["applied", "not needed"]


def test_a_repair_that_fails_says_so_and_stops_neither_the_import_nor_the_others(
    watched: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after(module: ModuleType) -> None:
        raise AttributeError("no such function in this version")

    mended: list[str] = []
    good = make(watched, after=lambda module: mended.append(module.__name__))
    monkeypatch.setattr(compat, "REPAIRS", [make(watched, after=after), good])
    with pytest.warns(UserWarning, match="repair X1 .* failed .*recbole-ext doctor"):
        __import__(watched)
    assert mended == [watched]
    bad, fine = (what for _, what in compat.status())
    assert bad == "failed: AttributeError: no such function in this version" and fine == "applied"


def test_a_repair_that_comes_too_late_says_so_in_one_sentence(
    watched: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    __import__(watched)
    late = make(watched, during=contextlib.nullcontext)
    harmless = make(watched, during=contextlib.nullcontext, needed=lambda: False)
    monkeypatch.setattr(compat, "REPAIRS", [late, harmless])
    with pytest.warns(UserWarning, match=f"X1 .* {watched} .*import recbole_ext before") as said:
        compat.apply()
        compat.apply()
    assert len(said) == 1
    assert [what.partition(":")[0] for _, what in compat.status()] == ["unavailable", "not needed"]


LATE = """
    import warnings
    import torch, recbole.model.sequential_recommender
    {before}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        import recbole_ext
    ours = [str(one.message) for one in said if "recbole_ext" in str(one.message)]
    print(torch.is_anomaly_enabled(), len(ours), "anomaly mode" in "".join(ours))
    print([what for repair, what in recbole_ext.compat.status() if repair.id == "U7"])
"""


@pytest.mark.parametrize(
    ("before", "outcome"),
    [("", "False 1 True"), ("torch.autograd.set_detect_anomaly(False)", "False 0 False")],
)
def test_u7_anomaly_mode_is_switched_off_after_an_import_of_recbole(
    before: str, outcome: str
) -> None:
    assert run(LATE.format(before=before)).splitlines() == [outcome, "['applied']"]


REGISTER = """
    from . import extension
    import torch
    @torch.library.register_fake("torchvision::nms")
    def _(dets, scores, iou_threshold):
        return dets
    @torch.library.register_fake("torchvision::qnms")
    def _(dets, scores, iou_threshold):
        return dets
"""
DECLARES = """
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def write_torchvision(folder: Path, compiled: str) -> None:
    """Write a package that is imported as torchvision is: the compiled part, then the fakes."""
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(textwrap.dedent(REGISTER))
    (package / "extension.py").write_text("import torch\n" + textwrap.dedent(compiled))


@pytest.mark.parametrize(("compiled", "outcome"), [("", "applied"), (DECLARES, "not needed")])
def test_b16_torchvision_without_its_operators_is_imported(
    tmp_path: Path, compiled: str, outcome: str
) -> None:
    """The import ends where that of the CUDA wheel does: a fake for what is not declared."""
    write_torchvision(tmp_path, compiled)
    out = run(f"""
        import sys; sys.path.insert(0, {str(tmp_path)!r})
        import recbole_ext, torchvision, torch
        print([what for repair, what in recbole_ext.compat.status() if repair.id == "B16"])
        print(hasattr(torch.ops.torchvision, "nms"), hasattr(torch.ops.torchvision, "qnms"))
    """)
    assert out.splitlines() == [f"['{outcome}']", "True True"]


def test_b16_torchvision_that_failed_before_is_imported_at_the_second_attempt(
    tmp_path: Path,
) -> None:
    write_torchvision(tmp_path, "")
    out = run(f"""
        import sys; sys.path.insert(0, {str(tmp_path)!r})
        try:
            import torchvision
        except RuntimeError as error:
            print(error)
        import recbole_ext, torchvision
        print([what for repair, what in recbole_ext.compat.status() if repair.id == "B16"])
    """)
    assert out.splitlines() == ["operator torchvision::nms does not exist", "['applied']"]


def test_b16_torchvision_that_is_absent_is_not_needed() -> None:
    code = """
        from recbole_ext import compat
        print([what for repair, what in compat.settle() if repair.id == "B16"])
    """
    assert "not needed: No module named 'torchvision'" in run(code, without="torchvision")
