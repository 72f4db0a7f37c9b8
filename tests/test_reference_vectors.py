"""Outputs of the original implementations, equal to those of ``gradloc.evaluation.metrics``.

The file of vectors is ``$GRADLOC_REFERENCE_VECTORS`` (default ``../shared/reference_vectors.json``
beside the checkout). A check is written for a function, not for a vector: any further vector of
the same function runs too, with its own sizes, names and options.
"""

import copy

import pytest
from reference_checks import (
    CHECKS,
    DEFAULT,
    GIVEN,
    PATH,
    check_locality,
    check_of,
    is_other,
    read_vectors,
)
from reference_inputs import literal, read_lists, read_options

VECTORS = read_vectors(PATH)
# Vectors of the shared file whose function is a metric of gradloc.
N_METRIC_VECTORS = 11

METRIC_VECTORS = [vector for vector in VECTORS if check_of(vector)]


def test_the_file_is_there():
    if not VECTORS and not GIVEN:
        pytest.skip(f"{DEFAULT} is absent; set GRADLOC_REFERENCE_VECTORS to a file of vectors")
    assert VECTORS, f"GRADLOC_REFERENCE_VECTORS: {PATH} is absent or has no vectors"


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_vector(vector):
    check = check_of(vector)
    if check is None:
        what = is_other(vector)
        assert what, f"no check for {vector['function']!r}; add it to CHECKS or to OTHERS"
        pytest.skip(f"{vector['function']}: {what}, not asked by a suite")
    check(vector)


def test_no_metric_vector_is_left_out():
    if PATH.resolve() != DEFAULT.resolve() or not VECTORS:
        pytest.skip("the number is known of the default file only")
    assert len(METRIC_VECTORS) >= N_METRIC_VECTORS
    assert len({check_of(vector) for vector in METRIC_VECTORS}) >= len(CHECKS) - 1


def leaves(value, path=()):
    if isinstance(value, (dict, list)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, (*path, key))
    else:
        yield path


def wrong(value):
    if isinstance(value, (int, float)):
        return value + 0.01 * max(1.0, abs(value))
    return f"{value} and more" if isinstance(value, str) else 0.5


@pytest.mark.parametrize("vector", METRIC_VECTORS, ids=lambda vector: vector["id"])
def test_a_wrong_output_is_seen(vector):
    check, places = check_of(vector), list(leaves(vector["output"]))
    assert places
    for path in places:
        if check is check_locality and path[0] != "locality":
            continue  # ids of tokens, in a vocabulary that is not told
        changed = copy.deepcopy(vector)
        part = changed
        for key in ("output", *path)[:-1]:
            part = part[key]
        last = ("output", *path)[-1]
        part[last] = wrong(part[last])
        with pytest.raises(AssertionError):
            check(changed)


def further(function, given, expected):
    return {"id": "further", "function": function, "input": given, "output": expected}


@pytest.mark.parametrize(
    ("function", "given", "expected"),
    [
        # Losses fall to 1 at step 901 and rise to 1.5 by step 951; before, they stand at 2.
        (
            "get_probe_measurements(ex_idx<80 -> ten injections)",
            {"series": "v[t]=2 for t<=900; v[t]=1+0.01*(t-901) for t>900; len 1000", "window": 50},
            {
                "50": {
                    "effectivity": [0.0] * 9 + [1.0],
                    "retainability_pct": [50.0],
                    "step_ret": [None] * 9 + [0.5],
                    "min": [1.0],
                }
            },
        ),
        # Nothing is acquired: the original skips the probe.
        (
            "get_probe_measurements(ex_idx>=80 -> once)",
            [3.0] * 101,
            {"10": {"effectivity": [], "retainability_pct": [], "init": []}},
        ),
        ("remove_outliers_iqr", {"data": [0, 1, 2, 3, 9], "multiplier": 2.9}, [0, 1, 2, 3]),
        ("plot_trendline", [1.0, 0.9, 0.7], {"intercept": 1.0214759}),
        ("plot_trendline", {"x": [1, 10, 100], "y": [1.0, 0.8, 0.6]}, {"tau_steps": 1e5}),
        (
            "FUAR (paper Eq.1, n=1)",
            {
                "initial": {"IL": 10, "UL": 1, "NL": 2},
                "rows": {"a": {"IL": 12, "UL": 2, "NL": 2}, "b": {"IL": 9, "UL": 1, "NL": 0}},
            },
            {"a": 0.0, "b": "no gain"},
        ),
        (
            "test_prediction_acc",
            {"model": "bigram: a->b, b->c, else [UNK]", "calls": [["x a", "b c c"]]},
            [[2 / 3]],
        ),
        (
            "finalize_locality_metrics",
            'pre-edit bigram is->a, a->b, post-edit is->b, a->b; locality prompt target "a b"',
            {"locality": [0.5]},
        ),
    ],
)
def test_further_vectors_of_the_same_functions_run(function, given, expected):
    vector = further(function, given, expected)
    check_of(vector)(vector)


def test_a_function_that_nobody_knows_is_no_silent_skip():
    vector = further("compute_something_new", [], [])
    assert check_of(vector) is None and is_other(vector) is None
    with pytest.raises(AssertionError, match="add it to CHECKS"):
        test_vector(vector)


def test_formulas():
    assert read_lists("v[0]=3; v[t]=v[t-1]/2 for 1<=t<=2; v[t]=t otherwise; len 5")["v"] == [
        3, 1.5, 0.75, 3, 4,
    ]  # fmt: skip
    assert read_lists("x=1..3; y=2*x^2 - log10(10)")["y"] == [1, 7, 17]
    assert read_lists("a loss: L[0..1]=1, L[i]=2 if i == 2 else 5, len 4")["L"] == [1, 1, 2, 5]
    assert read_options("same once series, interval=10, factor=1.5") == {
        "interval": 10,
        "factor": 1.5,
    }
    assert literal("2 examples; each (a, b): [[1, 'x'], [2, 'y']]") == [[1, "x"], [2, "y"]]


@pytest.mark.parametrize(
    "text",
    ["v[t]=__import__('os').getpid(); len 2", "v[t]=unknown; len 2", "v[t]=().__class__; len 1",
     "v[t]=1 for t>0; len 2", "nothing of the kind"],
)  # fmt: skip
def test_formulas_are_read_and_never_run(text):
    with pytest.raises(ValueError, match="cannot read|no formula"):
        read_lists(text)
