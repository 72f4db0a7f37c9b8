import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gradloc
from gradloc.config import shipped
from gradloc.config.shipped import KINDS, find_data, shipped_dir, shipped_names, shipped_path
from gradloc.errors import GradlocError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A package in an otherwise empty folder, as ``shipped`` sees it."""
    package = tmp_path / "site" / "gradloc"
    package.mkdir(parents=True)
    monkeypatch.setattr(shipped, "__file__", str(package / "config" / "shipped.py"))

    def add(path):
        file = tmp_path / "site" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("name: x\n")
        return file

    return add


def test_this_checkout_ships_recipes_and_suites():
    for kind in ("recipes", "suites"):
        names = shipped_names(kind)
        assert names, f"no YAML file in {shipped_dir(kind)}"
        assert all(shipped_path(kind, name).suffix == ".yaml" for name in names)
    assert "quickstart" in shipped_names("recipes")
    assert all(shipped_dir(kind).is_dir() for kind in KINDS)
    assert shipped_path("metrics", "fuar/fuar.py").is_file()


def test_found_in_a_clone(tree):
    file = tree("recipes/news/daily.yaml")
    assert shipped_names("recipes") == ("news/daily",)
    for name in ("news/daily", "news/daily.yaml"):
        assert shipped_path("recipes", name) == file


def test_found_in_a_wheel_before_a_folder_that_happens_to_lie_beside_it(tree):
    tree("recipes/other.yaml")
    file = tree("gradloc/_shipped/recipes/a.yaml")
    assert shipped_names("recipes") == ("a",)
    assert shipped_path("recipes", "a") == file


def test_files_other_than_yaml_are_found_by_their_whole_name(tree):
    tree("evaluation/suites/suite.yaml")
    file = tree("evaluation/suites/probes/capitals.jsonl")
    assert shipped_names("suites") == ("suite",)
    assert shipped_path("suites", "probes/capitals.jsonl") == file
    with pytest.raises(GradlocError):
        shipped_path("suites", "probes/capitals")


def test_what_is_not_there_is_named(tree):
    tree("recipes/quickstart.yaml")
    tree("secret.yaml")
    with pytest.raises(GradlocError, match="'quickstrat'.*Did you mean 'quickstart'"):
        shipped_path("recipes", "quickstrat")
    with pytest.raises(GradlocError, match="no shipped file"):
        shipped_path("recipes", "../secret")
    with pytest.raises(GradlocError, match="shipped suites is missing"):
        shipped_names("suites")
    with pytest.raises(GradlocError, match="'bench'.*Known: recipes, suites"):
        shipped_names("bench")


def test_data_of_a_recipe_is_found_after_the_working_directory(tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tree("recipes/data/news/a.jsonl")
    tree("recipes/quickstart.yaml")
    assert find_data("data/news/a.jsonl") == str(file)
    # What is no data of a recipe, or not there at all, stays as it was written.
    for path in ("quickstart.yaml", "data/../quickstart.yaml", "data/news/b.jsonl", str(file), ""):
        assert find_data(path) == path
    (tmp_path / "data/news").mkdir(parents=True)
    (tmp_path / "data/news/a.jsonl").write_text("mine")
    assert find_data("data/news/a.jsonl") == "data/news/a.jsonl"


def test_the_working_directory_does_not_matter(tmp_path):
    copy = tmp_path / "site"
    package = Path(gradloc.__file__).parent
    shutil.copytree(package, copy / "gradloc", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "recipes").mkdir()
    (copy / "recipes" / "only.yaml").write_text("name: x\n")
    code = "from gradloc.config.shipped import shipped_names; print(shipped_names('recipes'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(copy)},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "('only',)"
