"""The public names are a contract: scripts outside the project use them."""

import dataclasses
import inspect
import re
import subprocess
import sys

import pytest

import gradloc

NAMES = [name for name in gradloc.__all__ if name != "__version__"]
RECORDS = ("EvalResult", "GradientProfile", "LayerPlan", "ProbeSet")

# Parameters by position or keyword, as scripts outside the project call them.
SIGNATURES = {
    "load_recipe": ["path", "overrides"],
    "load_probes": ["path"],
    "measure_gradients": ["model", "batches", "reference", "granularity", "reduction"],
    "select_layers": ["profile", "policy"],
    "freeze_layers": ["model", "plan"],
    "run": ["recipe"],
    "evaluate": ["checkpoint", "suite", "baseline"],
}


def test_the_public_names_are_those_promised():
    others = {"GradLocCallback", "GradLocConfig", "GradlocError", "attach"}
    assert set(NAMES) == {*SIGNATURES, *RECORDS, *others}
    assert dir(gradloc) == gradloc.__all__
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        gradloc.nonsense  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
def test_exists_and_says_what_it_is(name):
    thing = getattr(gradloc, name)
    assert thing.__name__ == name
    lines = inspect.getdoc(thing).splitlines()
    assert lines[0].endswith((".", ":")), "one line that stands alone"
    assert len(lines[0]) <= 100
    # A dataclass without a docstring gets its signature as one.
    assert not lines[0].startswith(name + "(")


@pytest.mark.parametrize("name", SIGNATURES)
def test_functions_take_what_is_promised_and_document_it(name):
    function = getattr(gradloc, name)
    parameters = inspect.signature(function).parameters
    assert [item for item in parameters if item in SIGNATURES[name]] == SIGNATURES[name]
    document = inspect.getdoc(function)
    sections = re.split(r"^(Args|Returns|Raises|Example|References):$", document, flags=re.M)
    assert {"Args", "Returns"} <= set(sections)
    arguments = sections[sections.index("Args") + 1]
    for parameter in parameters:
        assert re.search(rf"^    ([*\w]+, )*\**{parameter}\b.*:", arguments, flags=re.M), parameter


@pytest.mark.parametrize("name", RECORDS)
def test_records_are_frozen_and_documented_and_can_be_stored(name):
    record = getattr(gradloc, name)
    assert dataclasses.is_dataclass(record) and record.__dataclass_params__.frozen
    assert callable(record.save) and callable(record.load)
    document = inspect.getdoc(record)
    for item in dataclasses.fields(record):
        assert re.search(rf"^    (\w+, )*{item.name}\b.*:", document, flags=re.M), item.name


def test_the_callback_is_made_as_promised():
    assert next(iter(inspect.signature(gradloc.GradLocCallback).parameters)) == "plan"
    parameters = inspect.signature(gradloc.GradLocCallback.from_probes).parameters
    assert list(parameters)[0] == "probes" and {"reference", "policy"} <= set(parameters)


def test_every_error_is_a_gradloc_error():
    from gradloc import errors

    classes = [item for item in vars(errors).values() if inspect.isclass(item)]
    assert len(classes) > 8
    assert all(issubclass(item, gradloc.GradlocError) for item in classes)
    assert all(inspect.getdoc(item) for item in classes)


@pytest.mark.parametrize("module", ["gradloc", "gradloc.config.recipe", "gradloc.cli.main"])
def test_importing_costs_nothing(module):
    code = (
        f"import sys, {module}\n"
        "print(*{'torch', 'transformers', 'datasets', 'scipy', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_what_stands_one_dot_down_is_found_there_and_not_at_the_top():
    from gradloc import training
    from gradloc.report import write_report
    from gradloc.training.merging import merge_checkpoints

    assert callable(write_report) and callable(merge_checkpoints)
    assert set(training.__all__) == {
        "InputProjectionCallback",
        "InterpolationCallback",
        "ReferenceKLCallback",
    }
    for name in training.__all__:
        assert getattr(training, name).__name__ == name
        assert not hasattr(gradloc, name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        training.nonsense  # noqa: B018


# What a training script need not pay for until it measures, evaluates or writes a report.
NOT_FOR_SCRIPTS = (
    "cli",
    "config.recipe",
    "data.benchmarks",
    "data.corpora.readers",
    "evaluation",
    "experiments",
    "localization.gradients",
    "localization.policies",
    "report",
    "training.methods.method_table",
)
IMPORT = """
import sys, time
start = time.process_time()
from transformers import Trainer
plain = time.process_time() - start
import gradloc.training.callback
whole = time.process_time() - start
print(whole / plain)
print(*sorted(name for name in sys.modules if name.split(".")[0] == "gradloc"))
"""


@pytest.mark.slow
def test_the_callback_loads_little_and_costs_little_more_than_the_trainer():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ratio, loaded = done.stdout.splitlines()
    crept_in = [
        name for name in loaded.split() if name.removeprefix("gradloc.").startswith(NOT_FOR_SCRIPTS)
    ]
    assert crept_in == []
    assert len(loaded.split()) <= 60, loaded
    assert float(ratio) <= 1.2
