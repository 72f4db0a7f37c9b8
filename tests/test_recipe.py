import dataclasses
import re
import subprocess
import sys
import textwrap
import time

import pytest

from gradloc.config.recipe import (
    ArmConfig,
    CorpusConfig,
    ProbesConfig,
    ProbeSource,
    Recipe,
    dump_recipe,
    find_recipe,
    save_resolved,
)
from gradloc.config.yaml_source import parse_yaml
from gradloc.errors import GradlocError, RecipeError
from gradloc.experiments.recipes import load_recipe
from gradloc.utils.environment import current_environment


@pytest.fixture
def load(tmp_path):
    """Write a recipe and load it."""

    def load(text, *overrides):
        path = tmp_path / "wiki.yaml"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return load_recipe(path, overrides)

    return load


@pytest.fixture
def problems(load):
    """Write a recipe that must fail; the problems it reports."""

    def problems(text, *overrides):
        with pytest.raises(RecipeError) as caught:
            load(text, *overrides)
        assert str(caught.value).startswith(f"{caught.value.source}: {len(caught.value.problems)} ")
        return list(caught.value.problems)

    return problems


def test_a_good_recipe(load):
    recipe = load(
        """
        name: wiki
        seed: 3
        corpus: {source: jsonl, paths: [a.jsonl, b.jsonl.gz], cutoff: "2025-01-01"}
        probes:
          sources:
            - {path: probes.jsonl, defaults: {group: new}}
        training: {learning_rate: 1.0e-4, num_train_epochs: 3, save_strategy: "no", bf16: false}
        arms:
          ours: {policy: interference_ratio, training: {learning_rate: 2.5e-4}}
          full: {policy: all}
        """
    )
    assert recipe == Recipe(
        name="wiki",
        seed=3,
        corpus=CorpusConfig(source="jsonl", paths=("a.jsonl", "b.jsonl.gz"), cutoff="2025-01-01"),
        probes=ProbesConfig(sources=(ProbeSource(path="probes.jsonl", defaults={"group": "new"}),)),
        training={
            "learning_rate": 1e-4,
            "num_train_epochs": 3,
            "save_strategy": "no",
            "bf16": False,
        },
        arms={
            "ours": ArmConfig(training={"learning_rate": 2.5e-4}),
            "full": ArmConfig(policy="all"),
        },
    )
    assert list(recipe.arms) == ["ours", "full"], "the first arm is the main one"
    assert str(recipe.run_dir) == "runs/wiki"


def test_the_error_of_the_style_guide(load):
    with pytest.raises(RecipeError) as caught:
        load(
            """
            name: wiki
            corpus:
              cutof: "2020-01-01"
            training:
              learning_rate: "1e-3"
            """
        )
    source, rest = str(caught.value).split(": 2 problems\n")
    assert source.endswith("wiki.yaml")
    assert rest == (
        "  corpus.cutof: unknown key. Did you mean 'cutoff'?\n"
        "  training.learning_rate: '1e-3' is text, not a number; write 1e-3 without quotes"
    )


TRAPS = {
    # YAML's own traps
    "seed: 1e3": "seed: 1000.0 is not a whole number; write 1000",
    'seed: "7"': "seed: '7' is text, not a number; write 7 without quotes",
    "model: true": 'model: true is no text; write "true" in quotes',
    "model: 12": 'model: 12 is a number; write "12" in quotes',
    "corpus: {packing: yes}": "corpus.packing: 'yes' is text; write true without quotes",
    "seed: 1:30": "seed: expected a whole number, found '1:30'",
    "training: {weight_decay: 1e999}": (
        "training.weight_decay: must be a finite number of at most 40 digits"
    ),
    f"seed: {'7' * 5000}": "seed: must be a finite number of at most 40 digits",
    'model: "\\ud800"': "model: \\ud800 is half of a surrogate pair and no character",
    "corpus: {options: {x: .nan}}": (
        "corpus.options.x: must be a finite number of at most 40 digits"
    ),
    "seed: 1\nseed: 2": 'line 3, column 1: found duplicate key "seed"; keep one',
    "seed: !!python/object:os.system x": (
        "seed: the tag 'tag:yaml.org,2002:python/object:os.system' is not supported; remove it"
    ),
    "corpus: &a\n  options: *a": "line 2, column 9: a value that refers to itself; write it out",
    "seed:": "seed: is empty; give a whole number or remove the line",
    # types and ranges
    "seed: 8.0": "seed: 8.0 is not a whole number; write 8",
    "seed: many": "seed: expected a whole number, found 'many'",
    "seed: [1]": "seed: expected a whole number, found a list",
    "seed: -1": "seed: must be greater than or equal to 0, found -1",
    "corpus: x": "corpus: expected a mapping (lines of key: value), found 'x'",
    "corpus: {paths: a.jsonl}": "corpus.paths: expected a list, found 'a.jsonl'; write [a.jsonl]",
    "probes: {localization_fraction: 1.5}": (
        "probes.localization_fraction: must be less than or equal to 1, found 1.5"
    ),
    "probes: {max_localization: 0}": (
        "probes.max_localization: must be greater than or equal to 1, found 0"
    ),
    "probes: {sources: [{}]}": "probes.sources.0.path: is missing; add the line 'path: ...'",
    "probes: {sources: [{path: x, grup: y}]}": (
        "probes.sources.0.grup: unknown key. Known: path, format, fields, defaults."
    ),
    'corpus: {cutoff: "2023-02-30"}': (
        "corpus.cutoff: '2023-02-30' is not a date of the calendar; write it as \"2023-01-31\""
    ),
    'corpus: {cutoff: "20230201"}': (
        "corpus.cutoff: '20230201' is not a date of the calendar; write it as \"2023-01-31\""
    ),
    "dtype: float16": "dtype: expected 'float32' or 'bfloat16', found 'float16'",
    "arms: {}": "arms: needs at least 1, found 0",
    f"seed: {2**32}": "seed: must be less than 4294967296, found 4294967296",
    "measure: {n_probes: 10_000_000_000}": (
        "measure.n_probes: must be less than or equal to 1000000000, found 10000000000"
    ),
    "arms: {a/b: {}}": (
        "arms.a/b: an arm's name may hold only letters, digits, '-' and '_', 100 at most; rename it"
    ),
    "arms: {full: {polcy: all}}": "arms.full.polcy: unknown key. Did you mean 'policy'?",
    "arms: {full: all}": "arms.full: expected a mapping (lines of key: value), found 'all'",
    # names from the live tables
    "arms: {a: {policy: rgn_above_men}}": (
        "arms.a.policy: name 'rgn_above_men' is unknown. Did you mean 'rgn_above_mean'?"
    ),
    "arms: {a: {policy: top_rgn_k, options: {n: 3}}}": (
        "arms.a.options.n: no option of policy 'top_rgn_k'. "
        "Known: k, only, budget, memory_budget, share."
    ),
    "corpus: {source: jsnl}": "corpus.source: name 'jsnl' is unknown. Did you mean 'jsonl'?",
    # TrainingArguments
    "training: {learning_rat: 1.0e-3}": (
        "training.learning_rat: unknown key, no field of transformers.TrainingArguments. "
        "Did you mean 'learning_rate'?"
    ),
    "training: {learning_rate: 0}": "training.learning_rate: must be greater than 0, found 0",
    "training: {max_steps: 1e2}": ("training.max_steps: 100.0 is not a whole number; write 100"),
    "training: {max_steps: 10.5}": "training.max_steps: expected a whole number, found 10.5",
    "training: {lr_scheduler_type: cosin}": (
        "training.lr_scheduler_type: unknown name 'cosin'. Did you mean 'cosine'?"
    ),
    'training: {bf16: "true"}': "training.bf16: 'true' is text; write true without quotes",
    "training:\n  weight_decay:": (
        "training.weight_decay: is empty; give a number or remove the line"
    ),
    "training: {seed: 3}": (
        "training.seed: is set by gradloc: one seed serves the whole run; set 'seed' of the recipe"
    ),
    'arms: {full: {training: {learning_rate: "1e-3"}}}': (
        "arms.full.training.learning_rate: '1e-3' is text, not a number; write 1e-3 without quotes"
    ),
}


@pytest.mark.parametrize("line", TRAPS)
def test_each_trap_is_named_with_its_cure(problems, line):
    assert problems(f"name: x\n{line}\n") == [TRAPS[line]]


@pytest.mark.parametrize("written", ["1e-3", "1E-3", "1e3", "1.0e3", "2.5e5", "5e-05", ".5e2"])
def test_the_cure_for_a_number_is_read_as_that_number(problems, load, written):
    (problem,) = problems(f'name: x\ntraining: {{learning_rate: "{written}"}}\n')
    cure = re.search(r"write (\S+) without quotes$", problem)[1]
    recipe = load(f"name: x\ntraining: {{learning_rate: {cure}}}\n")
    assert recipe.training["learning_rate"] == float(written)


def test_whole_file_problems(problems, tmp_path):
    assert problems("") == ["the file is empty; a recipe needs at least the line 'name: ...'"]
    assert problems("# nothing\n") == problems("")
    assert problems("- name: x\n") == [
        "expected a mapping (lines of key: value); a recipe needs at least the line 'name: ...'"
    ]
    assert problems("seed: 1\n") == ["name: is missing; add the line 'name: ...'"]
    assert problems("name: x\ncorpus:\n\tsource: jsonl\n") == [
        "line 3, column 1: a tab; YAML is indented with spaces only"
    ]
    assert problems("name: a: b\n")[0].startswith("line 1, column 8: mapping values are not")
    (tmp_path / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    with pytest.raises(GradlocError, match="latin.yaml: is not UTF-8 text"):
        load_recipe(tmp_path / "latin.yaml")
    (tmp_path / "null.yaml").write_bytes(b"name: a\x00b")
    with pytest.raises(GradlocError, match="null.yaml:1: holds a null byte"):
        load_recipe(tmp_path / "null.yaml")


def test_yaml_is_read_as_version_1_2_says(load):
    recipe = load(
        """
        name: no
        model: on
        corpus: {cutoff: 2020-01-01, fields: {no: off}, options: {1: 0o17, x: 010}}
        training: {learning_rate: 1e-3, save_strategy: no}
        """
    )
    assert (recipe.name, recipe.model, recipe.corpus.cutoff) == ("no", "on", "2020-01-01")
    assert recipe.corpus.fields == {"no": "off"} and recipe.corpus.options == {"1": 15, "x": 10}
    assert recipe.training == {"learning_rate": 1e-3, "save_strategy": "no"}


def test_what_means_far_more_than_it_looks_like_is_refused_at_once(problems):
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    start = time.perf_counter()
    (problem,) = problems(bomb)
    assert problem.startswith("means more than 100,000 values; write out what its aliases mean")
    (problem,) = problems("a: " + "[" * 200 + "]" * 200)
    assert "is nested more than 50 levels deep" in problem
    (problem,) = problems("a: " + "[" * 20_000)
    assert "is nested more than 50 levels deep" in problem
    assert time.perf_counter() - start < 20  # 1 s alone


def test_aliases_and_merges_are_written_out(load):
    recipe = load(
        """
        name: x
        corpus: {options: &o {a: 1, b: 2}}
        arms:
          one: {policy: top_k, options: &k {k: 2}}
          two: {policy: top_k, options: {<<: *k, only: mlp}}
          three: {policy: top_k, options: {<<: *k, k: 3}}
        """
    )
    assert recipe.arms["two"].options == {"k": 2, "only": "mlp"}
    assert recipe.arms["three"].options == {"k": 3}


def test_many_problems_come_at_once_in_the_order_of_the_file(problems):
    found = problems(
        """\
        name: true
        trainng: {}
        training:
          learning_rate: "1e-3"
          nonsense_key: 1
        corpus:
          cutoff: 2023-02-30
          max_length: 0
          source: jsnl
        arms:
          full: {policy: al, training: {bf16: 3}}
        """
    )
    assert [line.split(":")[0] for line in found] == [
        "name",
        "trainng",
        "training.learning_rate",
        "training.nonsense_key",
        "corpus.cutoff",
        "corpus.max_length",
        "corpus.source",
        "arms.full.policy",
        "arms.full.training.bf16",
    ]


def test_missing_file(tmp_path):
    with pytest.raises(RecipeError, match=r"quickstrat: 1 problem\n  no such file.*'quickstart'"):
        load_recipe("quickstrat")
    with pytest.raises(RecipeError, match="is a folder; name a recipe file in it"):
        load_recipe(tmp_path)


def test_a_shipped_recipe_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipe("quickstart") == load_recipe("recipes/quickstart.yaml")
    # A file of the user's own goes first.
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/quickstart.yaml").write_text("name: mine\n")
    assert load_recipe("recipes/quickstart.yaml").name == "mine"
    assert find_recipe("quickstart") != find_recipe("recipes/quickstart.yaml")


def test_overrides(load, problems):
    text = """
        name: x
        corpus: {cutoff: "2020-01-01", paths: [a, b]}
        probes: {sources: [{path: p}, {path: q}]}
    """
    recipe = load(
        text,
        "seed=4",
        "corpus.paths=[c]",
        "corpus.options.n_entities=30",
        "probes.sources.1.path=z=1",
        "training.learning_rate=2.0e-4",
        "arms.full={policy: all}",
    )
    assert (recipe.seed, recipe.corpus.paths) == (4, ("c",))
    assert recipe.corpus.cutoff == "2020-01-01", "what is not overridden stays"
    assert recipe.corpus.options == {"n_entities": 30}
    assert [source.path for source in recipe.probes.sources] == ["p", "z=1"]
    assert recipe.training == {"learning_rate": 2e-4}
    assert recipe.arms == {"full": ArmConfig(policy="all")}

    assert problems(text, "training.learning_rate='1e-3'") == [
        "training.learning_rate: '1e-3' is text, not a number; write 1e-3 without quotes"
    ]
    assert problems(text, "corpus.cutof=no") == [
        "corpus.cutof: unknown key. Did you mean 'cutoff'?"
    ]
    assert problems(text, "seed") == ["override 'seed': has no value; write key.path=value"]
    assert problems(text, "=1") == ["override '=1': has no key; write key.path=value"]
    for key, place in (
        ("learning_rate", "training.learning_rate"),
        ("arms.full.bf16", "arms.full.training.bf16"),
    ):
        assert problems(text, f"{key}=1") == [f"{key}: unknown key. Did you mean '{place}'?"]
    assert problems(text, "name.x=1") == [
        "override 'name.x': leads to nothing that can be set in this file"
    ]
    assert problems(text, "corpus.cutoff=[") and problems(text, "probes.sources.7.path=x")


def test_an_override_cures_what_it_replaces(load):
    assert load("name: x\ncorpus: {cutoff: 2020}\n", "corpus.cutoff=2021-01-01")


TRICKY = [
    "no",
    "1e-3",
    "1.0e3",
    "2020-01-01",
    "010",
    "null",
    "~",
    "a: b",
    "- x",
    " pad ",
    "é\nü",
    "",
]


def test_dump_loads_back_equal(load):
    recipe = load("name: x\n")
    recipe = dataclasses.replace(
        recipe,
        model="1e-3",
        corpus=dataclasses.replace(
            recipe.corpus, paths=tuple(TRICKY), options={"list": TRICKY, "float": 1e-5, "int": 3}
        ),
        training={"learning_rate": 1e-5, "save_strategy": "no", "eval_steps": None},
        arms={"on": ArmConfig(policy="top_rgn_k", options={"k": 10})},
    )
    text = dump_recipe(recipe)
    assert load(text) == recipe
    assert 'model: "1e-3"' in text, "other YAML readers take it for a number"
    assert "environment" not in text


def test_a_section_that_is_a_study_now_is_left_out_where_it_asks_for_nothing(load):
    assert load("name: x\ninjection: {n_facts: 0, every: 100}\n") == load("name: x\n")
    with pytest.raises(RecipeError, match="injection: unknown key"):
        load("name: x\ninjection: {n_facts: 2}\n")


def test_save_resolved_records_the_environment(load, tmp_path):
    recipe = load("name: x\n")
    path = save_resolved(recipe, tmp_path / "run" / "recipe.yaml")
    data = parse_yaml(path.read_text())
    assert data["environment"] == current_environment()
    assert data["environment"]["versions"]["torch"]
    assert data["probes"]["max_localization"] == 64, "defaults are written out"
    loaded = load_recipe(path)
    assert loaded == recipe, "the environment is no part of what is compared"
    assert loaded.environment == current_environment()
    assert recipe.environment == {}
    # Saved again elsewhere, the record is new, not copied.
    stale = dataclasses.replace(loaded, environment={"python": "1.5"})
    assert load_recipe(save_resolved(stale, path)).environment == current_environment()


def test_environment_imports_no_library():
    code = (
        "import sys; from gradloc.utils.environment import current_environment; "
        "current_environment(); assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_recipe_is_checked_in_python_too():
    with pytest.raises(ValueError):
        CorpusConfig(max_length=0)
    with pytest.raises(ValueError):
        Recipe(name="a/b")


def test_an_arm_may_keep_its_selection_within_a_budget(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("name: r\narms:\n  ours:\n    options: {k: 4, budget: 0.5}\n")
    assert load_recipe(path).arms["ours"].options == {"k": 4, "budget": 0.5}
