"""Score matrices of stages, transfer and forgetting, by hand."""

import json

import pytest
from stage_scores import analyse_stages, main

from gradloc.errors import GradlocError
from gradloc.evaluation.results import ArmResult, EvalResult, MetricValue

ARMS = ("first", "second")
# Probes of two tasks by two; the third task is trained on in no stage.
COLUMNS = {
    "group": ["new"] * 5,
    "depth": ["paraphrase"] * 5,
    "task": ["b", "b", "a", "a", ""],
    "kind": ["x", "y", "x", "y", "x"],
    "entity": ["p", "q", "r", "s", ""],
    "date": ["2024-02-03", "2024-02-20", "2024-01-01", "2024-01-02", ""],
}
NLL = {
    "baseline": [4.0, 4.0, 4.0, 4.0, 9.0],
    "first": [1.0, 2.0, 3.5, 3.5, 9.0],
    "second": [2.0, 3.0, 1.0, 1.0, 9.0],
}


def make_results(n=5, **more):
    items = {"probe_ids": list("vwxyz")[:n], "probes": {k: v[:n] for k, v in COLUMNS.items()}}
    for arm, losses in NLL.items():
        right = [loss < 2.5 for loss in losses[:n]]
        items[arm] = {"nll": losses[:n], "exact": right, **more}
    figure = MetricValue(0.0, None, None, 1, "nats", False)
    arms = {arm: ArmResult(arm, {}, {}, {"x": figure}) for arm in ARMS}
    return EvalResult("s", "base", {}, arms, {}, items=items)


def values(rows):
    return [[found.value for found in row] for row in rows]


def test_the_matrix_and_its_measures_by_hand():
    found = analyse_stages(make_results(4), n_bootstrap=50)
    assert found.tasks == ("b", "a") and found.stages == ARMS
    # Log-probabilities: the mean of each task's losses with the sign changed.
    assert values([found.base]) == [[-4.0, -4.0]]
    assert values(found.scores) == [[-1.5, -3.5], [-2.5, -1.0]]
    measures = {name: figure.value for name, figure in found.measures.items()}
    assert measures == {
        "average_accuracy": -1.75,  # (-2.5 - 1) / 2
        "average_incremental_accuracy": -1.625,  # (-1.5 + -1.75) / 2
        "backward_transfer": -1.0,  # -2.5 - -1.5
        "forward_transfer": 0.5,  # -3.5 - -4
        "forgetting": 1.0,
    }
    assert found.measures["forgetting"].higher_is_better is False
    # Both probes of task b lost exactly one nat: paired resamples do not vary.
    assert (found.measures["forgetting"].low, found.measures["forgetting"].high) == (1.0, 1.0)
    assert found.scores[0][0].low < found.scores[0][0].high


def test_months_stand_in_their_order_and_undated_probes_are_left_out():
    found = analyse_stages(make_results(), by="month", stages=["second", "first"], n_bootstrap=9)
    assert found.tasks == ("2024-01", "2024-02") and found.stages == ("second", "first")
    assert values(found.scores) == [[-1.0, -2.5], [-3.5, -1.5]]
    assert found.n_left_out == 1


def test_shares_by_kind():
    found = analyse_stages(make_results(4), by="kind", metric="exact", n_bootstrap=9)
    assert found.tasks == ("x", "y")
    assert values(found.scores) == [[0.5, 0.5], [1.0, 0.5]]
    assert found.scores[0][0].unit == "fraction"


def test_more_tasks_than_stages_leave_only_the_average():
    found = analyse_stages(make_results(), n_bootstrap=9)
    assert found.tasks == ("b", "a", "new"), "a probe without a task counts under its group"
    assert list(found.measures) == ["average_accuracy"]


def test_a_probe_that_a_stage_did_not_score_is_left_out_of_all():
    results = make_results(4)
    results.items["second"]["nll"][0] = None
    found = analyse_stages(results, n_bootstrap=9)
    assert values(found.scores) == [[-2.0, -3.5], [-3.0, -1.0]] and found.n_left_out == 1


def test_without_a_baseline_there_is_no_forward_transfer():
    results = make_results(4)
    del results.items["baseline"]
    found = analyse_stages(results, n_bootstrap=9)
    assert found.base == () and "forward_transfer" not in found.measures


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "week"}, "--by 'week' is unknown"),
        ({"metric": "nl"}, "Did you mean 'nll'"),
        ({"stages": ["fist"]}, "no arm 'fist'. Did you mean 'first'"),
    ],
)
def test_wrong_choices(options, message):
    with pytest.raises(GradlocError, match=message):
        analyse_stages(make_results(), **options)


def test_results_without_the_probes_columns():
    results = make_results()
    del results.items["probes"]
    with pytest.raises(GradlocError, match="make them again"):
        analyse_stages(results)
    empty = make_results()
    empty.items["probes"]["kind"] = [""] * 5
    with pytest.raises(GradlocError, match="no probe has both a kind and"):
        analyse_stages(empty, by="kind")


def test_the_script_prints_tables_or_json(tmp_path, capsys):
    path = str(make_results(4).save(tmp_path / "results.json"))
    main([path, "--metric", "exact"])
    assert "forward transfer" in capsys.readouterr().out
    main([path, "--json"])
    data = json.loads(capsys.readouterr().out)
    assert data["kind"] == "stage_analysis" and data["scores"][0][0]["n"] == 2
