"""Imports follow the line: a module imports only from those above it."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import gradloc

PACKAGE = Path(gradloc.__file__).parent

# The one place where the order is kept. A package stands for all of its modules.
# fmt: off
ORDER = [
    "errors", "artifacts", "environment", "profile", "plan", "results", "yaml_source", "schema",
    "shipped", "recipe_checks", "recipe", "wrappers", "layers", "probes", "benchmarks", "spans",
    "corpus", "models", "checkpoints", "batches", "logits", "memory", "sequences", "sums",
    "one_at_a_time", "gram", "weight_spectrum", "progress", "gradients", "reliability", "cost",
    "selection", "measuring", "freezing", "label_loss", "mixed_precision", "prefix_cache",
    "metrics", "frontier", "scoring", "answers", "readings", "score_log", "lm_harness",
    "injection", "preparation", "suite_metrics", "harness_measures", "suites", "comparison",
    "trainer_hooks", "acquisition", "methods", "localizing", "callback", "training_watch",
    "training_data", "training", "evaluation", "gates", "report", "analysis", "pipeline",
    "terminal", "commands", "merging", "analyze", "planning", "bench", "sweep", "stream",
    "validation", "cli",
]
# fmt: on


def modules():
    """Every module of the package: its room (``corpus``), its dotted name and its file."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts and parts[0] != "_shipped":
            yield parts[0], ".".join(("gradloc", *parts)), path


def imported_names(tree):
    """Dotted names that are imported when the module is, not inside functions."""
    pending = list(ast.iter_child_nodes(tree))
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # `from gradloc.corpus import readers` may name a module or a thing in it.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            pending.extend(ast.iter_child_nodes(node))


def imported_modules(path, known):
    found = set()
    for name in imported_names(ast.parse(path.read_text(encoding="utf-8"))):
        while name and name not in known:
            name = name.rpartition(".")[0]
        found.add(name)
    return found - {""}


def violations(files, order):
    """Imports that lead down the line: from a room to itself is for ``test_no_cycles``."""
    known = {name for _, name, _ in files}
    for room, name, path in files:
        for target in sorted(imported_modules(path, known)):
            target_room = target.split(".")[1]
            if target_room != room and order.index(target_room) > order.index(room):
                yield f"{name} imports {target}, which stands below it"


def test_every_module_has_its_place():
    rooms = {room for room, _, _ in modules()}
    assert len(rooms) > 20
    assert rooms - set(ORDER) == set(), "place the new module in ORDER"
    assert set(ORDER) - rooms == set(), "ORDER names a module that is gone"
    assert len(ORDER) == len(set(ORDER))


def test_imports_lead_up_the_line():
    assert list(violations(list(modules()), ORDER)) == []


def test_no_cycles_within_a_package():
    files = list(modules())
    known = {name for _, name, _ in files}
    graph = {name: imported_modules(path, known) - {name} for _, name, path in files}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    ("text", "is_wrong"),
    [
        ("from gradloc.cli import main", True),
        ("from gradloc import cli", True),
        ("import gradloc.cli", True),
        ("if True:\n    import gradloc.cli", True),
        ("class A:\n    from gradloc.cli import main", True),
        ("def f():\n    from gradloc.cli import main", False),
        ("from gradloc.errors import GradlocError", False),
        ("import click", False),
    ],
)
def test_the_check_sees_what_it_should(tmp_path, text, is_wrong):
    (tmp_path / "plan.py").write_text(text)
    files = [(room, name, path) for room, name, path in modules() if room == "errors"]
    for room in ("plan", "cli"):
        path = tmp_path / f"{room}.py"
        path.touch()
        files.append((room, f"gradloc.{room}", path))
    assert bool(list(violations(files, ["errors", "plan", "cli"]))) == is_wrong
