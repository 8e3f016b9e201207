"""The import rules, read from the source with ``ast``: imports go down, and there are no cycles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

LAYERS = (
    (
        "types",
        "interfaces",
        "schedules",
        "paths",
        "atomic",
        "locks",
        "stopping",
        "malloc",
        "compat",
        "_standins",
    ),
    ("modules", "index", "features"),
    (
        "data",
        "config",
        "registry",
        "settings_check",
        "arguments",
        "settings_kinds",
        "settings_reading",
        "settings_values",
        "run_folder",
    ),
    ("models",),
    ("trainer", "callbacks", "distributed", "resume", "pretraining"),
    ("rerankers", "evaluation"),
    (
        "quick_start",
        "compare",
        "diagnose",
        "tune",
        "pipeline",
        "doctor",
        "report",
        "feature_commands",
        "data_commands",
        "slices_report",
        "score",
    ),
    ("cli", "serving"),
    ("__main__",),
)
"""From the bottom up. A new module or sub-package of ``recbole_ext`` takes its place here."""

WITHOUT_RECBOLE = ("modules", "index")
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def sources(package: Path) -> dict[str, ast.Module]:
    """Return module name without the package's own -> syntax tree; the package itself is ``""``."""
    trees = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        trees[".".join(parts)] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return trees


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield every name that is imported, in functions too, but not under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for branch in node.orelse:
                yield from imports(ast.Module([branch], []))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (
                f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names
            )
        else:
            yield from imports(node)


def edges(trees: dict[str, ast.Module]) -> list[tuple[str, str]]:
    """Return (importing module, imported module) of the package, each a module that exists."""
    found = []
    for module, tree in trees.items():
        for name in imports(tree):
            target = name.removeprefix("recbole_ext").lstrip(".")
            if name.split(".")[0] != "recbole_ext":
                continue
            while target and target not in trees:
                target = target.rpartition(".")[0]
            if target and target != module:
                found.append((module, target))
    return found


def problems(trees: dict[str, ast.Module]) -> list[str]:
    """Return each breach of the import rules in one line."""
    top = {module: module.split(".")[0] for module in trees}
    found = [
        f"{m or 'recbole_ext'}: relative import"
        for m, t in trees.items()
        if any(n[0] == "." for n in imports(t))
    ]
    found += [
        f"{module}: no layer; give it one in LAYERS"
        for module in trees
        if module and top[module] not in LEVEL
    ]
    for source, target in edges(trees):
        low, high = LEVEL.get(top[source]), LEVEL.get(top[target])
        if source and low is not None and high is not None and low < high:
            found.append(f"{source} (layer {low}) imports {target} (layer {high})")
        if {top[source], top[target]} == {"callbacks", "models"}:
            found.append(f"{source} imports {target}: they meet in interfaces")
    for module, tree in trees.items():
        if top[module] in WITHOUT_RECBOLE and any(
            name.split(".")[0] == "recbole" for name in imports(tree)
        ):
            found.append(f"{module} imports recbole: it takes and gives tensors")
    return found


def cycle(trees: dict[str, ast.Module]) -> list[str]:
    """Return the modules of one import cycle, or an empty list."""
    below: dict[str, set[str]] = {module: set() for module in trees}
    for source, target in edges(trees):
        below[source].add(target)
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module not in done:
            for target in sorted(below[module]):
                if loop := visit(target, [*path, module]):
                    return loop
            done.add(module)
        return []

    return next((loop for module in sorted(trees) if (loop := visit(module, []))), [])


PACKAGE = sources(ROOT / "recbole_ext")


def test_imports_only_go_down():
    assert problems(PACKAGE) == []


def test_no_import_cycle():
    assert cycle(PACKAGE) == []


def test_package_init_files_are_empty():
    inits = [
        path
        for path in (ROOT / "recbole_ext").rglob("__init__.py")
        if path.parent.name != "recbole_ext"
    ]
    assert inits
    assert [str(path) for path in inits if path.read_text(encoding="utf-8").strip()] == []


def test_every_package_folder_has_an_init_file():
    """Else ``find_packages`` leaves the folder out of the wheel."""
    folders = {path.parent for path in (ROOT / "recbole_ext").rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize(
    ("module", "code", "complaint"),
    [
        ("modules.a", "import recbole_ext.data.b", "modules.a (layer 1) imports data.b (layer 2)"),
        (
            "modules.a",
            "def f():\n    from recbole_ext.models import m",
            "modules.a (layer 1) imports models.m (layer 3)",
        ),
        (
            "models.m",
            "from recbole_ext.callbacks.c import C",
            "models.m (layer 3) imports callbacks.c (layer 4)",
        ),
        (
            "callbacks.c",
            "from recbole_ext.models.m import M",
            "callbacks.c imports models.m: they meet in interfaces",
        ),
        (
            "index.i",
            "from recbole.data import x",
            "index.i imports recbole: it takes and gives tensors",
        ),
        ("data.b", "from . import other", "data.b: relative import"),
        ("novel", "", "novel: no layer; give it one in LAYERS"),
    ],
)
def test_each_breach_is_seen(module, code, complaint):
    trees = {name: ast.parse("") for name in ("data.b", "models.m", "callbacks.c")}
    assert complaint in problems({**trees, module: ast.parse(code)})


def test_annotations_and_downward_imports_are_allowed():
    hint = "if TYPE_CHECKING:\n    from recbole_ext.models.m import M\n"
    code = hint + "from recbole_ext.types import Losses"
    assert (
        problems({"types": ast.parse(""), "models.m": ast.parse(""), "modules.a": ast.parse(code)})
        == []
    )


def test_a_cycle_is_seen():
    trees = {
        "data.a": ast.parse("from recbole_ext.data.b import B"),
        "data.b": ast.parse("def late():\n    from recbole_ext.data.a import A"),
    }
    assert cycle(trees) == ["data.a", "data.b", "data.a"]
