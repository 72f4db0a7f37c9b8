import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gradloc import load_probes, load_recipe
from gradloc.config.recipe import ArmConfig, CorpusConfig
from gradloc.config.yaml_source import dump_yaml
from gradloc.data.corpora.readers import read_corpus
from gradloc.errors import CorpusError, GradlocError, ProbeError, RunError
from gradloc.evaluation.score_record import ItemScores
from gradloc.experiments.continual import stage_runs
from gradloc.experiments.continual.continual_figures import LOSSES, continual_figures
from gradloc.experiments.continual.continual_page import continual_page, write_continual_page
from gradloc.experiments.continual.continual_record import (
    ArmRecord,
    ContinualRecord,
    StageRecord,
)
from gradloc.experiments.continual.periods import calendar_periods, stretch
from gradloc.experiments.continual.run_continual import run_continual
from gradloc.experiments.continual.shared_inputs import Division, open_continual
from gradloc.experiments.run import make_profile, open_run
from gradloc.experiments.train import train
from gradloc.localization.layer_selection import select_layers
from gradloc.localization.plan import LayerPlan
from gradloc.localization.profile import GradientProfile
from gradloc.report.page import pictures_of
from gradloc.utils.io import read_json

MONTHS = ("2025-01", "2025-02", "2025-04")
TOWNS = {
    "2025-01": ("Arvel", "Brune", "Calto"),
    "2025-02": ("Dorme", "Elvas", "Fulda"),
    "2025-04": ("Gorin", "Hasle", "Ilmen"),
}


def news(day, town, colour, number):
    """A dated document whose town is novel, and marked."""
    text = f"On that day news came from the town of {town} that it paints its gates {colour}."
    start = text.index(town)
    mention = [start, start + len(town), town, 1]
    return {"id": f"{day}_{number}", "date": day, "text": text, "entities": [mention]}


def all_documents():
    """Five old texts; three towns in each of three months; March speaks of nothing asked for."""
    documents = [
        {"id": f"old{i}", "date": f"2024-0{i + 1}-01", "text": f"Old text {i}: rain on hill {i}."}
        for i in range(5)
    ]
    for month, towns in TOWNS.items():
        for number, town in enumerate(towns):
            for day, colour in (("05", "red"), ("20", "blue")):
                documents.append(news(f"{month}-{day}", town, colour, number))
    documents.append({"id": "march", "date": "2025-03-09", "text": "Nothing of note was said."})
    return documents


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A corpus and probes: in each month two towns are asked for and the third chooses layers."""
    folder = tmp_path_factory.mktemp("data")
    with (folder / "news.jsonl").open("w") as file:
        file.writelines(json.dumps(document) + "\n" for document in all_documents())
    probes = []
    for month, towns in TOWNS.items():
        for number, town in enumerate(towns[:2]):
            # The id of the document of the 20th: that document is an evaluation item.
            probes.append({
                "id": f"{month}-20_{number}", "group": "new", "entity": town,
                "date": f"{month}-20", "prompt": f"It is blue that adorns the gates of {town} in",
                "targets": [f"May {number}"], "split": "evaluation",
            })  # fmt: skip
    probes += [
        {"id": f"k{i}", "group": "invariant", "prompt": f"{i} and 1 is", "targets": [str(i + 1)]}
        for i in range(4)
    ]
    probes.append({
        "id": "undated", "group": "new", "prompt": "The moon is", "targets": ["far"],
        "split": "evaluation",
    })  # fmt: skip
    with (folder / "probes.jsonl").open("w") as file:
        file.writelines(json.dumps(probe) + "\n" for probe in probes)
    (folder / "short.txt").write_text("The sea is wide.\n\nRain falls on the hills.\n")
    return folder


@pytest.fixture
def recipe_file(tmp_path, data, tiny_checkpoint):
    recipe = {
        "name": "tiny",
        "model": str(tiny_checkpoint),
        "output_dir": str(tmp_path / "runs"),
        "corpus": {
            "source": "jsonl",
            "paths": [str(data / "news.jsonl")],
            "cutoff": "2025-01-01",
            "about_probes": True,
            "max_length": 64,
        },
        "probes": {
            "sources": [{"path": str(data / "probes.jsonl")}],
            "from_documents": True,
            "screen_invariant": False,
        },
        "measure": {"n_probes": 4, "n_reference": 4, "max_length": 64},
        "training": {
            "learning_rate": 0.003,
            "num_train_epochs": 1,
            "per_device_train_batch_size": 2,
            "use_cpu": True,
            "disable_tqdm": True,
        },
        "arms": {
            "full": {"policy": "all"},
            "ours": {
                "policy": "top_rgn_k",
                "options": {"k": 2},
                "training": {"adam_beta1": 0.5, "learning_rate": 0.003},
            },
        },
        "evaluation": {
            "n_curve_points": 0,
            "n_bootstrap": 20,
            "general_text": [{"name": "short", "path": str(data / "short.txt")}],
        },
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_yaml(recipe))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data, tiny_checkpoint):
    """A whole stream of both arms, and its recipe; weights of all stages are kept."""
    folder = tmp_path_factory.mktemp("finished")
    path = recipe_file.__wrapped__(folder, data, tiny_checkpoint)
    recipe = load_recipe(path)
    run_continual(recipe, keep_weights=True)
    return recipe


def weights(folder):
    return load_file(folder / "model.safetensors")


def same_weights(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# ---- the calendar ------------------------------------------------------------------------------


def test_months_and_years_are_cut_to_the_stretch():
    months = calendar_periods("2024-11-15", "2025-02-10", "month")
    assert [tuple(period) for period in months] == [
        ("2024-11", "2024-11-15", "2024-12-01"),
        ("2024-12", "2024-12-01", "2025-01-01"),
        ("2025-01", "2025-01-01", "2025-02-01"),
        ("2025-02", "2025-02-01", "2025-02-10"),
    ]
    years = calendar_periods("2024-11-15", "2025-02-10", "year")
    assert [period.name for period in years] == ["2024", "2025"]
    assert not months[0].holds("2024-12-01") and months[1].holds("2024-12-01")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2025", ("2025-01-01", "2026-01-01")),
        ("2025-Q4", ("2025-10-01", "2026-01-01")),
        ("2025-12", ("2025-12-01", "2026-01-01")),
        ("2024-02-28", ("2024-02-28", "2024-02-29")),
    ],
)
def test_a_stretch_is_named_at_any_length(text, found):
    assert stretch(text, "--to") == found


@pytest.mark.parametrize("text", ["2025-13", "2025-Q5", "May 2025", "2025-02-30", ""])
def test_what_is_no_period_is_refused(text):
    with pytest.raises(GradlocError, match=r"--from: .* write 2025, 2025-Q1"):
        stretch(text, "--from")


# ---- corpus.until ------------------------------------------------------------------------------


def test_until_ends_the_update_documents_alone(data):
    config = CorpusConfig(source="jsonl", paths=(str(data / "news.jsonl"),), cutoff="2025-02-01")
    corpus = read_corpus(replace(config, until="2025-02-20"), seed=0)
    assert {document.date for document in corpus.update} == {"2025-02-05"}
    background = {document.date for document in corpus.background}
    assert background == {d["date"] for d in all_documents() if d["date"] < "2025-02-01"}
    with pytest.raises(CorpusError, match="not later than the cut-off"):
        read_corpus(replace(config, until="2025-02-01"), seed=0)
    with pytest.raises(CorpusError, match=r"and before 2025-02-02 \(corpus.until\)"):
        read_corpus(replace(config, until="2025-02-02"), seed=0)


# ---- what the arms share -----------------------------------------------------------------------


def test_no_evaluation_item_is_trained_on_or_replayed(recipe_file):
    start = open_continual(load_recipe(recipe_file), Division())
    lines = (start.folder / "documents.jsonl").read_text().splitlines()
    kept = {json.loads(line)["id"] for line in lines}
    items = {f"{month}-20_{number}" for month in MONTHS for number in (0, 1)}
    assert kept == {document["id"] for document in all_documents()} - items
    # January is background of the second stage, from where methods replay it.
    second = stage_runs.arm_stages(start, "full")[1].recipe
    corpus = read_corpus(second.corpus, seed=0)
    background = {document.id for document in corpus.background}
    assert "2025-01-05_0" in background and not background & items
    assert {document.date for document in corpus.update} == {"2025-02-05", "2025-02-20"}


def test_periods_without_documents_about_the_probes_are_left_out(recipe_file):
    start = open_continual(load_recipe(recipe_file), Division())
    assert tuple(stage.name for stage in start.stages) == MONTHS
    assert [p.name for p in start.timeline.periods] == ["2025-01", "2025-02", "2025-03", "2025-04"]
    assert any(note.startswith("2025-03 is left out: no document") for note in start.timeline.notes)
    assert "1 evaluation probes are left out: no date in any period." in start.timeline.notes
    again = open_continual(load_recipe(recipe_file), Division())
    assert again == start


def test_a_stage_has_its_own_localisation_probes_and_all_evaluation_probes(recipe_file):
    start = open_continual(load_recipe(recipe_file), Division())
    judged = {p.id for p in start.probes if p.split == "evaluation"}
    assert len(judged) == 6 + 4
    for stage in start.stages:
        probes = start.stage_probes(stage)
        assert {p.id for p in probes if p.split == "evaluation"} == judged
        local = [p.entity for p in probes if p.split == "localization"]
        assert local == [TOWNS[stage.name][2]]
    quarters = open_continual(
        load_recipe(recipe_file, ["name=quarters"]), Division(by="quarter", last="2025-03")
    )
    assert [stage.name for stage in quarters.stages] == ["2025-Q1"]
    assert len([p for p in quarters.stage_probes(quarters.stages[0])]) == 4 + 4 + 2


def test_bounds_leave_out_what_lies_outside(recipe_file):
    start = open_continual(load_recipe(recipe_file), Division(first="2025-02", last="2025-03"))
    assert [stage.name for stage in start.stages] == ["2025-02"]
    asked = {p.date[:7] for p in start.probes if p.split == "evaluation" and p.date}
    assert asked == {"2025-02"}
    assert "5 evaluation probes are left out: no date in any period." in start.timeline.notes
    documents = (start.folder / "documents.jsonl").read_text()
    assert "2025-04" not in documents


def test_streams_that_cannot_work_are_refused(recipe_file, data, tmp_path):
    recipe = load_recipe(recipe_file)
    with pytest.raises(GradlocError, match="before it begins"):
        open_continual(recipe, Division(first="2025-03", last="2025-02"))
    with pytest.raises(ProbeError, match="is dated from 2026-01-01"):
        corpus = replace(recipe.corpus, paths=(str(tmp_path / "late.jsonl"),))
        late = [*all_documents(), news("2026-02-01", "Jutta", "green", 7)]
        (tmp_path / "late.jsonl").write_text("".join(json.dumps(d) + "\n" for d in late))
        open_continual(replace(recipe, corpus=corpus), Division(first="2026"))
    with pytest.raises(RunError, match="has no arm 'ful'. Did you mean 'full'"):
        run_continual(recipe, arms=["ful"])
    # Without entities in the documents, localisation probes are those of one month.
    lines = [json.loads(line) for line in (data / "probes.jsonl").read_text().splitlines()]
    lines.append({
        "group": "new", "prompt": "A gate of Calto is", "targets": ["red"], "entity": "Calto",
        "date": "2025-01-05", "split": "localization",
    })  # fmt: skip
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    few = load_recipe(
        recipe_file,
        [f"probes.sources=[{{path: {tmp_path / 'more.jsonl'}}}]", "probes.from_documents=false"],
    )
    with pytest.raises(ProbeError, match="the layers of 2025-02, 2025-04: choose longer periods"):
        open_continual(few, Division())
    assert len(open_continual(few, Division(measure="once")).stages) == 3


# ---- the chain ---------------------------------------------------------------------------------


def by_hand(finished, data, tmp_path, month, model, name):
    """A stage as a person would train it: a file of its documents, and the previous weights."""
    about = {town for towns in TOWNS.values() for town in towns[:2]}
    items = {f"{m}-20_{number}" for m in MONTHS for number in (0, 1)}
    rows = [
        document
        for document in all_documents()
        if document["date"][:7] == month
        and document["id"] not in items
        and any(town in document["text"] for town in about)
    ]
    path = tmp_path / f"{month}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = replace(
        finished,
        name=name,
        output_dir=str(tmp_path),
        model=str(model),
        corpus=replace(finished.corpus, paths=(str(path),), about_probes=False),
        arms={"full": finished.arms["full"]},
    )
    probes = load_probes(data / "probes.jsonl")
    stage_plan = finished.run_dir / "full" / month / "plan.json"
    return train(recipe, stage_plan, out_dir=tmp_path / name, probes=probes)


@pytest.mark.slow
def test_each_stage_begins_with_the_weights_of_the_last(finished, data, tmp_path):
    model = finished.model
    for month in MONTHS[:2]:
        model = by_hand(finished, data, tmp_path, month, model, f"hand-{month}")
        assert same_weights(model, finished.run_dir / "full" / month / "checkpoint")
    wrong = by_hand(finished, data, tmp_path, MONTHS[1], finished.model, "wrong")
    assert not same_weights(wrong, finished.run_dir / "full" / MONTHS[1] / "checkpoint")


@pytest.mark.slow
def test_plans_are_measured_on_the_stage_s_own_probes_with_its_own_model(finished, tmp_path):
    first, second = (finished.run_dir / "ours" / month for month in MONTHS[:2])
    profiles = [GradientProfile.load(folder / "profile.json") for folder in (first, second)]
    for month, profile in zip(MONTHS, profiles, strict=False):
        asked = profile.settings["probe_ids"]
        assert asked and all(identifier.startswith(month) for identifier in asked)
    # The second is what measuring the first stage's checkpoint gives, and not the base model.
    recipe = load_recipe(second / "checkpoint" / "recipe.yaml")
    assert recipe.model == str(first / "checkpoint")
    probes = load_probes(second / "probes.jsonl")
    hand = make_profile(recipe, _made(tmp_path / "hand"), probes)
    assert np.array_equal(hand.probe_norm, profiles[1].probe_norm)
    base = replace(recipe, model=finished.model)
    other = make_profile(base, _made(tmp_path / "base"), probes)
    assert not np.allclose(other.probe_norm, profiles[1].probe_norm, rtol=1e-3)
    plan = LayerPlan.load(second / "plan.json")
    assert plan.scale == select_layers(profiles[1], "top_rgn_k", k=2).scale


@pytest.mark.slow
def test_an_arm_that_no_measurement_could_change_measures_the_base_alone(finished):
    folders = [finished.run_dir / "full" / month for month in MONTHS]
    assert [(folder / "profile.json").is_file() for folder in folders] == [True, False, False]
    plans = [read_json(folder / "plan.json", "plan") for folder in folders]
    assert plans[0] == plans[1] == plans[2]


def _made(folder):
    folder.mkdir()
    return folder


@pytest.mark.slow
def test_a_plan_can_be_measured_once(recipe_file):
    recipe = load_recipe(recipe_file, ["name=once"])
    run_continual(recipe, Division(last="2025-02", measure="once"), arms=["ours"])
    folders = [recipe.run_dir / "ours" / month for month in MONTHS[:2]]
    plans = [read_json(folder / "plan.json", "plan") for folder in folders]
    assert plans[0] == plans[1]
    assert [(folder / "profile.json").is_file() for folder in folders] == [True, False]


# ---- the figures -------------------------------------------------------------------------------


def scores(path):
    """Log-probability and correctness of each probe, and nats and tokens of each text."""
    data = json.loads(path.read_text())
    rows = dict(zip(data["probe_ids"], range(len(data["probe_ids"])), strict=True))
    columns = data["columns"]
    likelihood = {name: -columns["nll"][row] for name, row in rows.items()}
    right = {name: float(columns["exact"][row]) for name, row in rows.items()}
    return likelihood, right, data["texts"]["short"]


@pytest.mark.slow
def test_matrices_and_curves_are_those_of_the_scores_files(finished):
    record = ContinualRecord.load(finished.run_dir / "continual.json")
    figures = continual_figures(record)
    assert figures.columns == MONTHS and list(figures.arms) == ["full", "ours"]
    before, right_before, texts_before = scores(finished.run_dir / "base_scores.json")
    for name, arm in figures.arms.items():
        matrix = np.zeros((3, 3))
        for i, month in enumerate(MONTHS):
            path = finished.run_dir / name / month / "checkpoint" / "scores.json"
            after, right, texts = scores(path)
            for j, asked in enumerate(MONTHS):
                ids = [f"{asked}-20_{number}" for number in (0, 1)]
                matrix[i, j] = np.mean([after[key] - before[key] for key in ids])
            known = [f"k{number}" for number in range(4)]
            lost = np.mean([right_before[key] - right[key] for key in known])
            assert arm.curves["known_facts"][i].value == pytest.approx(lost)
            text = (sum(texts["nats"]) - sum(texts_before["nats"])) / sum(texts["tokens"])
            assert arm.curves["general_text"][i].value == pytest.approx(text, abs=1e-4)
            assert arm.curves["seen"][i].value == pytest.approx(matrix[i, : i + 1].mean(), abs=1e-4)
            assert arm.curves["current"][i].value == pytest.approx(matrix[i, i], abs=1e-4)
        found = np.array([[cell.value for cell in row] for row in arm.uptake])
        np.testing.assert_allclose(found, matrix, atol=1e-4)
        assert np.abs(matrix).max() > 0.01, "nothing was learned, so nothing is checked"
        assert arm.measures["average_accuracy"].value == pytest.approx(matrix[2].mean(), abs=1e-4)
    base = [np.mean([before[f"{month}-20_{n}"] for n in (0, 1)]) for month in MONTHS]
    np.testing.assert_allclose([cell.value for cell in figures.base], base, atol=1e-4)


def made_up(matrix, n_stages=None, dates=("2025-01-03", "2025-02-03", "2025-03-03")):
    """A record of one arm with two items (entities) a month, one above and one below the mean."""
    periods = calendar_periods("2025-01-01", "2025-04-01", "month")
    stages = [
        StageRecord(
            period=periods[i].name,
            metrics={
                **{
                    f"{date[:7]}_nll": ItemScores("uptake", "nats", (x - 0.5, x + 0.5), (0, 1))
                    for date, x in zip(dates, row, strict=True)
                },
                "known_facts": ItemScores("forgetting", "fraction", (1.0, 0.0, 0.0, 0.0)),
                "known_facts_nll": ItemScores("forgetting", "nats", (0.4, 0.0, 0.0, 0.0)),
                "general_text": ItemScores(
                    "forgetting", "nats/token", (0.1, 0.3), weights=(30, 10)
                ),
            },
            n_steps=3,
            train_seconds=2.0,
            trainable_fraction=0.5,
            trained=("a", "b"),
        )
        for i, row in enumerate(matrix[:n_stages])
    ]
    base = {f"{date[:7]}_nll": ItemScores("uptake", "nats", (-3.0, -3.0), (0, 1)) for date in dates}
    arm = ArmRecord("all", {}, 1e-4, 9, tuple(stages))
    return ContinualRecord(
        "made", "base", "month", "each", tuple(tuple(period) for period in periods),
        tuple(period.name for period in periods), base, {"full": arm}, n_bootstrap=50,
    )  # fmt: skip


R = [[1.0, 0.2, 0.1], [0.5, 2.0, 0.4], [0.7, 1.0, 3.0]]


def test_differences_are_paired_over_items(monkeypatch):
    """What moves both arms alike cancels; unpaired, the intervals would be wide."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "docs" / "_ext"))
    from generated import paired_differences

    record, other = made_up(R), made_up([[value - 0.3 for value in row] for row in R])
    twice = ItemScores("forgetting", "fraction", (1.0, 1.0, 0.0, 0.0))
    forgetful = [
        replace(stage, metrics={**stage.metrics, "known_facts": twice})
        for stage in other.arms["full"].stages
    ]
    arms = {
        "ours": record.arms["full"],
        "other": replace(other.arms["full"], stages=tuple(forgetful)),
        "unfinished": made_up(R, 2).arms["full"],
    }
    found = paired_differences(replace(record, arms=arms), "ours")
    assert list(found) == ["other"]
    uptake, known = found["other"]["uptake"], found["other"]["known_facts"]
    assert (uptake.value, uptake.low, uptake.high) == pytest.approx((0.3, 0.3, 0.3))
    assert known.value == pytest.approx(0.25) and known.higher_is_better


def test_transfer_and_forgetting_by_hand():
    figures = continual_figures(made_up(R))
    arm = figures.arms["full"]
    transfer = [name for name in arm.measures if name not in LOSSES]
    assert {name: arm.measures[name].value for name in transfer} == pytest.approx({
        "average_accuracy": (0.7 + 1.0 + 3.0) / 3,
        "average_incremental_accuracy": (1.0 + (0.5 + 2.0) / 2 + (0.7 + 1.0 + 3.0) / 3) / 3,
        "backward_transfer": ((0.7 - 1.0) + (1.0 - 2.0)) / 2,
        "forward_transfer": (0.2 + 0.4) / 2,
        "forgetting": ((1.0 - 0.7) + (2.0 - 1.0)) / 2,
    })  # fmt: skip
    assert arm.measures["forgetting"].higher_is_better is False
    assert arm.curves["known_facts"][0].value == 0.25
    assert arm.measures["known_facts"].value == 0.25
    assert arm.curves["general_text"][2].value == pytest.approx((0.1 * 30 + 0.3 * 10) / 40)
    # The offsets of the items are the same in all stages, so paired differences have no width.
    for name, width in (("backward_transfer", 0), ("forgetting", 0), ("average_accuracy", 0.1)):
        found = arm.measures[name]
        assert (found.high - found.low > 0.01) == bool(width), name


def test_an_unfinished_arm_counts_its_own_periods_alone():
    figures = continual_figures(made_up(R, n_stages=2))
    arm = figures.arms["full"]
    assert len(arm.uptake) == 2 and len(arm.uptake[0]) == 3
    assert arm.measures["average_accuracy"].value == pytest.approx((0.5 + 2.0) / 2)
    assert arm.measures["backward_transfer"].value == pytest.approx(0.5 - 1.0)


def test_a_stage_without_items_has_no_column_and_no_transfer():
    record = made_up([row[:2] for row in R], dates=("2025-01-03", "2025-03-03"))
    figures = continual_figures(record)
    arm = figures.arms["full"]
    assert figures.columns == ("2025-01", "2025-03")
    assert set(arm.measures) == set(LOSSES) and arm.curves["current"][1].value is None
    assert arm.curves["seen"][1].value == pytest.approx(0.5)
    assert len(pictures_of(continual_page(record, figures))) == 4 + 1


def test_scores_that_are_not_finite_are_kept_and_shown_as_missing(tmp_path):
    broken = [[1.0, 0.2, 0.1], [0.5, float("nan"), 0.4], [0.7, 1.0, 3.0]]
    record = ContinualRecord.load(made_up(broken).save(tmp_path / "continual.json"))
    figures = continual_figures(record)
    arm = figures.arms["full"]
    assert arm.uptake[1][1].value is None and "not finite" in arm.uptake[1][1].note
    assert arm.uptake[0][1].value == pytest.approx(0.2) and set(arm.measures) == set(LOSSES)
    *curves, matrix = pictures_of(continual_page(record, figures))
    assert matrix.table.rows[2].cells[2].text == "\N{EM DASH}" and len(curves) == 4


@pytest.mark.slow
def test_a_record_survives_saving(tmp_path, finished):
    record = ContinualRecord.load(finished.run_dir / "continual.json")
    assert record.arms and record.environment and record.notes
    assert record.arms["ours"].training == {"adam_beta1": 0.5}  # the rate stands by itself
    assert record.arms["ours"].learning_rate == 0.003
    assert ContinualRecord.load(record.save(tmp_path / "continual.json")) == record
    (tmp_path / "other.json").write_text('{"kind": "results"}')
    with pytest.raises(GradlocError, match="expected a record of continual training"):
        ContinualRecord.load(tmp_path / "other.json")


# ---- interruption ------------------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_a_stream_that_is_killed_again_and_again_ends_like_one_that_is_not(
    recipe_file, finished, monkeypatch
):
    recipe = load_recipe(recipe_file)
    replace_file = os.replace
    left, done, n_kills = 0, {}, 0

    def replace_while_alive(source, target):
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        replace_file(source, target)

    monkeypatch.setattr("gradloc.utils.io.os.replace", replace_while_alive)
    for allowed in (*range(9), 10**6):
        left = allowed
        try:
            run_continual(recipe, arms=["ours"])
        except Killed:
            n_kills += 1
        for path in recipe.run_dir.rglob("*.json"):
            json.loads(path.read_text())  # whole
            if path.name in ("training.json", "scores.json", "base_scores.json", "profile.json"):
                stamp = path.stat().st_mtime_ns
                assert done.setdefault(path, stamp) == stamp, f"{path} was made again"
    assert n_kills >= 7
    straight = ContinualRecord.load(finished.run_dir / "continual.json")
    record = ContinualRecord.load(recipe.run_dir / "continual.json")
    assert record.base == straight.base
    pairs = zip(straight.arms["ours"].stages, record.arms["ours"].stages, strict=True)
    for stage, other in pairs:
        assert replace(other, train_seconds=stage.train_seconds) == stage
    assert kept_weights(recipe) == {("ours", "2025-04")}


def kept_weights(recipe):
    return {
        path.parts[-4:-2]
        for path in recipe.run_dir.rglob("model.safetensors")
        if path.parts[-2] == "checkpoint"
    }


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["drop_weights", "score_model", "train_stage"])
def test_a_kill_between_two_steps_loses_nothing(recipe_file, finished, monkeypatch, victim):
    recipe = load_recipe(recipe_file)
    run_once, calls = getattr(stage_runs, victim), []

    n_before = {"drop_weights": 0}.get(victim, 1)  # weights are dropped once

    def die(*args, **kwargs):
        calls.append(args)
        if len(calls) == n_before + 1:
            raise Killed
        return run_once(*args, **kwargs)

    monkeypatch.setattr(stage_runs, victim, die)
    two = Division(last="2025-02")
    with pytest.raises(Killed):
        run_continual(recipe, two, arms=["full"])
    run_continual(recipe, two, arms=["full"])
    assert kept_weights(recipe) == {("full", "2025-02")}
    last = "full/2025-02/checkpoint"
    assert same_weights(recipe.run_dir / last, finished.run_dir / last)


@pytest.mark.slow
def test_weights_that_are_gone_are_asked_for_by_name(recipe_file, monkeypatch):
    recipe = load_recipe(recipe_file)
    run_once = stage_runs.train_stage

    def die_in_february(stage_recipe, *args, **kwargs):
        if stage_recipe.name == "2025-02":
            raise Killed
        return run_once(stage_recipe, *args, **kwargs)

    monkeypatch.setattr(stage_runs, "train_stage", die_in_february)
    with pytest.raises(Killed):
        run_continual(recipe, arms=["full"])
    (recipe.run_dir / "full" / "2025-01" / "checkpoint" / "model.safetensors").unlink()
    path, failed = run_continual(recipe, arms=["full"])
    assert list(failed) == ["full 2025-02", "full 2025-04"]
    assert "has no weights any more" in failed["full 2025-02"]
    assert failed["full 2025-04"] == "full 2025-02 failed"
    assert [stage.period for stage in ContinualRecord.load(path).arms["full"].stages] == ["2025-01"]


# ---- the command -------------------------------------------------------------------------------


@pytest.fixture
def invoke(gradloc):
    """Run ``gradloc continual``: what it prints."""

    def invoke(*arguments):
        code, out, err = gradloc("continual", *arguments)
        assert code == 0, err
        return out

    return invoke


@pytest.mark.slow
def test_a_finished_stream_belongs_to_its_recipe(finished):
    before = (finished.run_dir / "full" / "2025-01" / "checkpoint" / "training.json").stat()
    with pytest.raises(RunError, match=r"differs in --by, --to, training, arms.full"):
        run_continual(
            replace(
                finished,
                training={**finished.training, "num_train_epochs": 2},
                arms={"full": ArmConfig("none")},
            ),
            Division(by="quarter", last="2025-04"),
        )
    after = (finished.run_dir / "full" / "2025-01" / "checkpoint" / "training.json").stat()
    assert before.st_mtime_ns == after.st_mtime_ns


def test_a_run_and_a_stream_do_not_share_a_folder(recipe_file):
    recipe = load_recipe(recipe_file)
    open_run(recipe)
    (recipe.run_dir / "profile.json").write_text("{}")
    with pytest.raises(RunError, match=r"holds profile\.json of a run.*--set name"):
        open_continual(recipe, Division())
    assert sorted(p.name for p in recipe.run_dir.iterdir()) == ["profile.json", "recipe.yaml"]
    stream = replace(recipe, name="stream")
    open_continual(stream, Division())
    (stream.run_dir / "periods.json").unlink()  # as if killed before its last file
    for force in (False, True):
        with pytest.raises(RunError, match=r"holds a continual training.*--set name"):
            open_run(stream, force=force)
    assert open_continual(stream, Division()).probes == load_probes(stream.run_dir / "probes.jsonl")


@pytest.mark.slow
def test_an_arm_can_be_added(recipe_file):
    recipe = load_recipe(recipe_file)
    one = Division(last="2025-01")
    run_continual(replace(recipe, arms={"full": recipe.arms["full"]}), one)
    path, _ = run_continual(recipe, one, arms=["ours"])
    assert list(ContinualRecord.load(path).arms) == ["full", "ours"]
    assert list(load_recipe(recipe.run_dir / "recipe.yaml").arms) == ["full", "ours"]


@pytest.mark.slow
def test_the_command_trains_draws_and_prints(invoke, recipe_file):
    text = invoke(recipe_file, "--arm", "full", "--to", "2025-01")
    folder = load_recipe(recipe_file).run_dir
    assert "2025-01" in text and "Forgetting" in text and str(folder / "continual.html") in text
    (folder / "continual.html").unlink()
    figures = json.loads(invoke(folder / "continual.json", "--json"))
    assert figures["stages"] == ["2025-01"]
    assert len(figures["arms"]["full"]["uptake"]) == 1
    assert (folder / "continual.html").is_file()


@pytest.mark.slow
def test_the_page_shows_every_arm_and_needs_no_network(finished, tmp_path):
    record = ContinualRecord.load(finished.run_dir / "continual.json")
    page = write_continual_page(record, continual_figures(record), tmp_path / "c.html").read_text()
    own = page[: page.index('<script type="application/json"')]
    assert "http://" not in own and "https://" not in own
    specs = json.loads(
        page.split('<script type="application/json" id="pictures">')[1].split("</script>")[0]
    )
    assert set(specs) == {
        "matrix-0", "matrix-1", "curve-current", "curve-seen", "curve-known_facts",
        "curve-general_text",
    }  # fmt: skip
    rows = [row for row in specs["matrix-0"]["data"]["values"] if row["marked"]]
    assert {(row["y"], row["x"]) for row in rows} == {(month, month) for month in MONTHS}
    for note in record.notes:
        assert note in page


@pytest.mark.slow
def test_arms_train_beside_each_other(recipe_file, finished):
    recipe = load_recipe(recipe_file)
    path, failed = run_continual(recipe, Division(last="2025-02"), jobs=2)
    assert failed == {}
    straight = ContinualRecord.load(finished.run_dir / "continual.json").arms
    for name, arm in ContinualRecord.load(path).arms.items():
        assert [stage.trained for stage in arm.stages] == [
            s.trained for s in straight[name].stages
        ][:2]
        for stage, other in zip(arm.stages, straight[name].stages, strict=False):
            metrics = stage.metrics["2025-01_nll"], other.metrics["2025-01_nll"]
            np.testing.assert_allclose(metrics[0].values, metrics[1].values, atol=2e-3)
