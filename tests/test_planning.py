"""Plans beside each other, and the command that shows them."""

import contextlib
import io
import json

import numpy as np
import pytest
from rich.console import Console
from test_selection import profile

from gradloc import GradientProfile, LayerPlan, select_layers
from gradloc.cli.options import read_options
from gradloc.cli.plan import plan
from gradloc.errors import GradlocError
from gradloc.localization.budget import Budget
from gradloc.localization.plan_candidates import plan_candidates
from gradloc.models import load_model
from gradloc.models.unit_info import UnitInfo
from gradloc.models.units import find_units
from gradloc.report.plan_tables import describe_units, planning_tables

N_BLOCKS = 12


def two_islands(**changes):
    """MLPs of blocks 1 and 2 stand out, and, twice as much, those of 8 to 10."""
    rows = [UnitInfo("embed", "embedding", None, 8000)]
    for block in range(N_BLOCKS):
        rows.append(UnitInfo(f"layers.{block}.attn", "attention", block, 1024))
        rows.append(UnitInfo(f"layers.{block}.mlp", "mlp", block, 3072))
    rows.append(UnitInfo("norm", "norm", None, 16))
    align = np.full((4, len(rows)), 0.1)
    for block, value in ((1, 4), (2, 4), (8, 8), (9, 8), (10, 8)):
        align[:, 2 + 2 * block] = value
    ones = np.ones((4, len(rows)))
    values = dict(
        units=tuple(rows),
        probe_norms=ones,
        reference_norms=ones,
        probe_alignment=align,
        reference_alignment=ones,
        model="tiny",
        shape={"n_blocks": N_BLOCKS, "hidden_size": 16, "vocab_size": 500, "kv_size": 16},
    )
    return GradientProfile(**values | changes)


def by_name(planning):
    return {row.name: row for row in planning.candidates}


def test_rows_are_the_plans_that_selection_makes():
    p = two_islands()
    planning = plan_candidates(p, "interference_ratio", limits=Budget(budget=0.6), k=6)
    rows = by_name(planning)
    assert planning.candidates[planning.chosen].name == "time ≤ 0.6"
    assert rows["time ≤ 0.6"].plan.trained == select_layers(p, k=6, budget=0.6).trained
    assert rows["80% of its mass"].share >= 0.8
    assert rows["last 4 blocks"].plan.trained == select_layers(p, "top_k", k=4).trained
    full = rows["full training"]
    assert (full.predicted["time_ratio"], full.predicted["memory_ratio"]) == (1, 1)
    assert (full.share, full.cached_time_ratio) == (1.0, None)
    # The last blocks hold MLPs 8-10 without being what the rule wants: no mass for the others.
    rule = select_layers(p, k=6)
    mass = sum(rule.scores[name] for name in rule.trained)
    kept = set(rule.trained) & set(rows["last 4 blocks"].plan.trained)
    assert rows["last 4 blocks"].share == pytest.approx(
        sum(rule.scores[name] for name in kept) / mass, abs=1e-4
    )


def test_the_chosen_plan_is_the_one_asked_for():
    def chosen(**limits):
        planning = plan_candidates(two_islands(), "interference_ratio", limits=Budget(**limits))
        return planning.candidates[planning.chosen].name

    assert chosen() == "interference_ratio"
    assert chosen(share=0.5) == "50% of its mass"
    assert chosen(memory_budget=0.5, share=0.5) == "memory ≤ 0.5, mass ≥ 50%"


def test_what_stands_in_few_words():
    units = two_islands().units
    names = ["layers.3.mlp", "layers.4.mlp", "layers.6.mlp", "layers.9.attn", "layers.9.mlp"]
    assert describe_units(units, names) == "MLP 3–4, 6; block 9"
    assert describe_units(units, [u.name for u in units]) == "everything"
    assert describe_units(units, ["embed", "layers.0.attn"]) == "attention 0; embed"
    assert describe_units(units, []) == "nothing"


def printed(planning, width):
    console = Console(width=width, record=True, file=io.StringIO())
    for item in planning_tables(planning, "tiny"):
        console.print(item)
    return console.export_text()


def test_the_table_fits_and_says_what_was_computed():
    planning = plan_candidates(two_islands(), "interference_ratio", limits=Budget(budget=0.5))
    text = printed(planning, 100)
    assert max(map(len, text.splitlines())) <= 100
    rows = by_name(planning)
    line = next(line for line in text.splitlines() if "interference_ratio" in line)
    for figure in ("time_ratio", "memory_ratio"):
        assert f"{rows['interference_ratio'].predicted[figure]:.2f}" in line
    assert "MLP 1–2, 8–10" in line and "100%" in line
    assert "→ " in next(line for line in text.splitlines() if "time ≤ 0.5" in line)


def run(*arguments):
    """Run the command: its output; a failure of gradloc is raised."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        read_options(plan, "gradloc plan", [str(a) for a in arguments])()
    return output.getvalue()


@pytest.fixture
def profile_file(tmp_path):
    return two_islands().save(tmp_path / "profile.json")


def test_the_command_on_a_profile_prints_and_writes_the_plan(profile_file, tmp_path):
    out = tmp_path / "plan.json"
    text = run(profile_file, "--budget", 0.6, "--out", out, "--batch-size", 4)
    assert "4 × 128 tokens" in text and str(out) in text
    written = LayerPlan.load(out)
    assert 0 < written.predicted["time_ratio"] <= 0.6
    assert written.options == {"budget": 0.6}
    data = json.loads(run(profile_file, "--budget", 0.6, "--batch-size", 4, "--json"))
    assert data["chosen"] == "time ≤ 0.6"
    row = next(row for row in data["candidates"] if row["name"] == data["chosen"])
    assert tuple(row["trained"]) == written.trained
    assert row["time_ratio"] == written.predicted["time_ratio"]
    with pytest.raises(GradlocError, match="exists.*--force"):
        run(profile_file, "--out", out)
    run(profile_file, "--out", out, "--force")
    assert LayerPlan.load(out).trained == select_layers(two_islands()).trained


@pytest.mark.slow
def test_options_reach_prediction_and_policy(profile_file):
    def rows(*arguments):
        data = json.loads(run(profile_file, "--json", *arguments))
        return {row["name"]: row for row in data["candidates"]}, data

    plain, _ = rows()
    own, _ = rows("--own-loss")
    name = "interference_ratio"
    assert own[name]["memory_ratio"] > plain[name]["memory_ratio"]
    few, data = rows("--labelled-fraction", 0.1, "--sequence-length", 64, "--dtype", "bfloat16")
    assert few[name]["time_ratio"] < plain[name]["time_ratio"]
    assert (data["step"]["sequence_length"], data["step"]["dtype"]) == (64, "bfloat16")
    three, _ = rows("-o", "k=3")
    assert len(three[name]["trained"]) == 3
    other, _ = rows("--policy", "raw_norm", "-o", "k=2")
    assert len(other["raw_norm"]["trained"]) == 2
    _, data = rows("--calibrate")
    assert "this machine" in data["step"]["machine"]["origin"]
    # A cached prefix makes room for more within the same time.
    _, data = rows("--cached", "--budget", 0.5)
    assert data["chosen"] == "cached time ≤ 0.5"


def test_a_plan_of_the_users_stands_among_the_others(profile_file, tmp_path):
    mine = tmp_path / "mine.json"
    names = two_islands().names
    mine.write_text(json.dumps({"scale": {n: float(n == "layers.9.mlp") for n in names}}))
    data = json.loads(run(profile_file, "--plan", mine, "--json"))
    first = data["candidates"][0]
    assert (first["name"], first["trained"]) == ("your plan", ["layers.9.mlp"])
    assert (data["chosen"], first["share_of_mass"]) == ("your plan", 0.25)
    select_layers(profile(), k=2).save(mine)
    with pytest.raises(GradlocError, match="does not fit this profile"):
        run(profile_file, "--plan", mine)


def test_the_command_on_a_model_shows_plans_of_position(tiny_checkpoint, tmp_path):
    data = json.loads(run(tiny_checkpoint, "-o", "k=1", "--json"))
    rows = {row["name"]: row for row in data["candidates"]}
    assert {"top_k", "first 3 blocks", "MLPs of the last third", "full training"} == set(rows)
    found = [u.name for u in find_units(load_model(tiny_checkpoint)) if u.info.block == 2]
    assert rows["top_k"]["trained"] == found
    assert rows["top_k"]["share_of_mass"] is None
    assert rows["top_k"]["time_ratio"] < 1
    assert "No scores" in run(tiny_checkpoint, "-o", "k=1")
    with pytest.raises(GradlocError, match="needs the scores of a profile.*gradloc measure"):
        run(tiny_checkpoint, "--budget", 0.5)
    with pytest.raises(GradlocError, match="needs the scores of a profile"):
        run(tiny_checkpoint, "--policy", "interference_ratio")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", 0.01), "no unit fits within budget 0.01.*the cheapest"),
        (("--budget", -1), "above 0"),
        (("--share", 80), "0.8: 80 %.* at most 1; found 80"),
        (("--budget", 50), "budget, a ratio to full training.*found 50"),
        (("--memory-budget", 30), "memory_budget, a ratio.*found 30"),
        (("--batch-size", 0), "--batch-size must be"),
        (("--policy", "interference_ration"), "Did you mean 'interference_ratio'"),
        (("--policy", "top_k", "--budget", 0.5), "no score"),
        (("-o", "k"), "KEY=VALUE"),
    ],
)
def test_bad_requests_are_explained(profile_file, arguments, message):
    with pytest.raises(GradlocError, match=message):
        run(profile_file, *arguments)
