import pytest

from gradloc.errors import GradlocError
from gradloc.evaluation.results import ArmResult, EvalResult, MetricValue
from gradloc.evaluation.thresholds import parse_threshold, require_baseline


def result(**losses):
    arms = {
        name: ArmResult(
            checkpoint=name,
            uptake={"new_nll": MetricValue(2.0, 1.5, 2.5, 9, "nats", True)},
            forgetting={"known_facts": figure},
            scores={},
        )
        for name, figure in losses.items()
    }
    return EvalResult("facts", "base", {}, arms, {})


def loss(value, low=None, high=None, note=""):
    return MetricValue(value, low, high, 9, "fraction", False, note)


@pytest.mark.parametrize(
    ("condition", "caught"),
    [
        ("forgetting.known_facts > 0.05", ["b"]),
        ("forgetting.known_facts>=0.02", ["a", "b"]),
        ("forgetting.known_facts.low > 0.05", []),
        ("forgetting.known_facts.high > 0.05", ["b"]),
        ("uptake.new_nll < 2", []),
        ("uptake.new_nll <= 2", ["a", "b"]),
        ("uptake.new_nll.low < 1.6", ["a", "b"]),
    ],
)
def test_conditions_catch_what_they_say(condition, caught):
    found = parse_threshold(condition).caught(
        result(a=loss(0.02, 0, 0.04), b=loss(0.08, 0.01, 0.2))
    )
    assert [line.split(":")[0] for line in found] == caught


def test_the_line_says_what_was_found():
    (line,) = parse_threshold("forgetting.known_facts > 0.05").caught(result(a=loss(0.08)))
    assert line == "a: forgetting.known_facts is 0.08 fraction, which is > 0.05"


def test_a_missing_number_is_caught():
    threshold = parse_threshold("forgetting.known_facts > 0.05")
    (line,) = threshold.caught(result(a=loss(None, note="nothing was known")))
    assert "has no number (nothing was known)" in line


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("known_facts > 0.05", "cannot be read; write it like"),
        ("forgetting.known_facts = 0.05", "cannot be read"),
        ("forgeting.known_facts > 0.05", "Did you mean 'forgetting'?"),
        ("forgetting.known_facts.lo > 0.05", "Did you mean 'low'?"),
        ("forgetting.known_facts > 5%", "'5%' is no number"),
    ],
)
def test_conditions_that_cannot_be(condition, message):
    with pytest.raises(GradlocError, match="--fail-if") as caught:
        parse_threshold(condition)
    assert message in str(caught.value)


def test_only_scores_can_be_judged_without_a_baseline():
    require_baseline([parse_threshold("scores.known_facts < 0.9")])
    for kind in ("uptake", "forgetting", "versus_full"):
        with pytest.raises(GradlocError, match=f"without --baseline there is no {kind}"):
            require_baseline([parse_threshold(f"{kind}.x > 0")])


def test_unknown_metrics_name_the_nearest():
    with pytest.raises(GradlocError, match="Did you mean 'forgetting.known_facts'"):
        parse_threshold("forgetting.knwn_facts > 0").caught(result(a=loss(0.1)))
