"""What is in the wheel is what a user gets: built here and looked into, without the network."""

import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from gradloc import __version__
from gradloc.config.shipped import KINDS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("gradloc-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The wheel unpacked, as it lies in site-packages."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def files_below(folder, root):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(root).as_posix() for p in paths if "__pycache__" not in p.parts}


@pytest.mark.slow
def test_every_recipe_and_suite_is_in_the_wheel(installed):
    shipped = installed / "gradloc" / "_shipped"
    assert not (shipped / "evaluation" / "studies").exists()
    for folder in KINDS.values():
        ours = files_below(ROOT / folder, ROOT)
        assert ours, f"{folder}/ holds no file"
        assert files_below(shipped / folder, shipped) == ours
        for name in ours:
            assert (shipped / name).read_bytes() == (ROOT / name).read_bytes()


def test_the_package_is_in_the_wheel_with_its_data_files_and_nothing_else_is(installed):
    ours = files_below(ROOT / "gradloc", ROOT)
    theirs = files_below(installed / "gradloc", installed)
    assert {name for name in theirs if "/_shipped/" not in name} == ours
    assert any(not name.endswith(".py") for name in ours), "the corpus has data files"
    (info,) = installed.glob("*.dist-info")
    assert {path.name for path in installed.iterdir()} == {"gradloc", info.name}


def test_metadata(installed):
    (info,) = installed.glob("*.dist-info")
    metadata = Parser().parsestr((info / "METADATA").read_text())
    assert metadata["Name"] == "gradloc"
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in (info / "licenses" / "LICENSE").read_text()
    assert metadata.get_payload().strip(), "the README is the page on the package index"
    assert "gradloc = gradloc.cli.main:main" in (info / "entry_points.txt").read_text()


@pytest.mark.slow
def test_the_unpacked_wheel_works_without_the_checkout(installed, tmp_path):
    code = (
        "import gradloc, gradloc.config.shipped as s\n"
        "assert gradloc.__file__.startswith(SITE), gradloc.__file__\n"
        "names = s.shipped_names('recipes')\n"
        "from gradloc.experiments.sweep.sweep_config import load_sweep\n"
        "for name in names:\n"
        "    (load_sweep if name.startswith('sweeps/') else gradloc.load_recipe)(name)\n"
        "quickstart = gradloc.load_recipe('recipes/quickstart.yaml')\n"
        "from gradloc.data.corpora.readers import read_corpus\n"
        "assert list(read_corpus(quickstart.corpus, seed=0).background)\n"
        "print(len(names), quickstart.name)\n"
    ).replace("SITE", repr(str(installed)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(installed), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    n_recipes = len(list((ROOT / "recipes").rglob("*.yaml")))
    assert done.stdout.split() == [str(n_recipes), "quickstart"]


def requirements(text):
    return [line.split("#")[0].strip() for line in text.splitlines() if line.split("#")[0].strip()]


def test_constraints_pin_everything_that_the_project_asks_for():
    lines = requirements((ROOT / "constraints.txt").read_text())
    for line in lines:
        assert re.fullmatch(r"[a-z0-9.-]+==[0-9a-z.]+", line), line
    pinned = {line.split("==")[0] for line in lines}
    assert "torch==2.13.0" in lines
    project = (ROOT / "pyproject.toml").read_text()
    asked = set(re.findall(r'^ +"([a-z0-9.-]+)[><=]', project, flags=re.MULTILINE))
    for extra in re.findall(r"^(?:gguf|trl|docs) = \[(.*)\]", project, flags=re.MULTILINE):
        asked |= set(re.findall(r'"([a-z0-9-]+)', extra))
    assert {"numpy", "sphinx", "gguf", "trl", "pytest"} <= asked, "the pattern finds the lists"
    assert asked <= pinned


def test_what_is_pinned_is_what_is_asked_for():
    """The lowest versions are run by `make test-floor`, which reads them from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = dict(line.split("==") for line in requirements((ROOT / "constraints.txt").read_text()))
    for requirement in map(Requirement, project["dependencies"]):
        assert requirement.specifier.contains(pinned[requirement.name]), requirement
        assert any(bound.operator == ">=" for bound in requirement.specifier), requirement


def test_set_up_names_no_package_index():
    for name in ("Makefile", "constraints.txt", "pyproject.toml", ".ci/run"):
        text = (ROOT / name).read_text()
        assert not re.search(r"https?://|index-url|find-links", text), name


def test_everything_is_pinned_once():
    names = [line.split("==")[0] for line in requirements((ROOT / "constraints.txt").read_text())]
    assert len(names) == len(set(names))


def test_make_without_a_target_lists_the_targets():
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("demo", "test", "docs", "lint", "clean"):
        assert f"make {target}" in done.stdout
