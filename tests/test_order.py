"""Imports follow one direction, inside functions too: a package imports only those before it."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import gradloc

PACKAGE = Path(gradloc.__file__).parent

# The one place where the order is kept. Packages of one row know nothing of each other.
ORDER = (
    ("errors",),
    ("utils",),
    ("config",),
    ("models", "data"),
    ("localization", "evaluation"),
    ("training", "report"),
    ("experiments",),
    ("cli",),
)
FLOOR = {package: floor for floor, row in enumerate(ORDER) for package in row}
# Fewer modules make a wrong PACKAGE, and a check that passes over nothing.
LEAST_MODULES = 100


def modules():
    """Every module: dotted name -> file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path, known):
    """Modules that a file imports anywhere, but for those that only a type checker reads."""
    found = set()
    pending = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        names = []
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            # `from gradloc.data import spans` may name a module or a thing in it.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        pending.extend(ast.iter_child_nodes(node))
        for name in names:
            while name and name not in known:
                name = name.rpartition(".")[0]
            found.add(name)
    return found - {"", "gradloc"}


def graph_of(files):
    return {name: imported(path, files) - {name} for name, path in files.items()}


def upward(graph):
    """Imports of a package that comes later, or of its neighbour in the same row."""
    for name, targets in sorted(graph.items()):
        package = name.split(".")[1] if "." in name else ""
        for target in sorted(targets):
            other = target.split(".")[1]
            if package and other != package and FLOOR[other] >= FLOOR[package]:
                yield f"{name} imports {target}"


def test_every_package_has_its_place():
    files = modules()
    assert len(files) > LEAST_MODULES
    assert {name.split(".")[1] for name in files if "." in name} == set(FLOOR)


def test_imports_lead_one_way():
    assert list(upward(graph_of(modules()))) == []


def test_no_circles():
    TopologicalSorter(graph_of(modules())).prepare()


@pytest.mark.parametrize(
    ("text", "is_wrong"),
    [
        ("from gradloc.cli import main", True),
        ("from gradloc import cli", True),
        ("import gradloc.cli", True),
        ("if True:\n    import gradloc.cli", True),
        ("class A:\n    from gradloc.cli import main", True),
        ("def f():\n    from gradloc.cli import main", True),
        ("from gradloc import evaluation", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import gradloc.cli", False),
        ("from gradloc.errors import GradlocError", False),
        ("import tyro", False),
    ],
)
def test_the_check_sees_what_it_should(tmp_path, text, is_wrong):
    files = {f"gradloc.{package}": tmp_path / f"{package}.py" for package in FLOOR}
    for path in files.values():
        path.touch()
    files["gradloc.localization"].write_text(text)
    assert bool(list(upward(graph_of(files)))) == is_wrong


def test_a_circle_is_seen(tmp_path):
    files = {f"gradloc.utils.{name}": tmp_path / f"{name}.py" for name in "ab"}
    files["gradloc.utils.a"].write_text("import gradloc.utils.b")
    files["gradloc.utils.b"].write_text("def f():\n    import gradloc.utils.a")
    with pytest.raises(CycleError):
        TopologicalSorter(graph_of(files)).prepare()
