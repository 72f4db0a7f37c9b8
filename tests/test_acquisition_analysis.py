"""The analysis of a record with known dynamics gives them back, and its page shows them."""

import dataclasses
import json
import math

import numpy as np
import pytest
from test_report_browser import browser, show  # noqa: F401  (a fixture)

from evaluation.metrics.acquisition.decay import fit_decay, mean_retainability
from evaluation.studies.acquisition.__main__ import main
from evaluation.studies.acquisition.analysis import analyse
from evaluation.studies.acquisition.page import acquisition_page
from evaluation.studies.acquisition.recording import RECORD_FILE, AcquisitionRecord
from gradloc.errors import GradlocError
from gradloc.report.page import write_page

EVERY, LAST = 2, 160
FIRSTS = {"once": (20,), "duplicated": (20, 30, 40), "paraphrased": (20, 30, 40)}
DECAY = {"once": 0.6, "duplicated": 0.4, "paraphrased": 0.2}
GAIN = {"verbatim": 0.5, "paraphrase": 0.25}


def series(first_steps, gain, decay, level=4.0):
    """A loss that falls by ``gain`` two steps after each exposure and comes back by the law.

    After the last: level - n * gain * (1 - decay * log10(steps since the maximum)).
    """
    steps = np.arange(0, LAST + 1, EVERY)
    losses = np.full(len(steps), level)
    for number, step in enumerate(first_steps, start=1):
        losses[steps >= step + 2] = level - number * gain
    since = steps - (first_steps[-1] + 2)
    after = since > 0
    kept = 1 - decay * np.log10(np.maximum(since, 1))
    losses[after] = level - len(first_steps) * gain * kept[after]
    return losses


def make_record(n=8, drift=0.0, controls=0, outlier=False):
    """``n`` entities a scenario; every second one is injected four steps later."""
    columns, nll, injected = [], [], {}
    rng = np.random.default_rng(0)
    steps = np.arange(0, LAST + 1, EVERY)
    common = drift * np.sin(steps / 30)
    for scenario, exposures in FIRSTS.items():
        for number in range(n):
            entity = f"{scenario}-{number}"
            injected[entity] = tuple(step + 4 * (number % 2) for step in exposures)
            for depth, gain in GAIN.items():
                level, size = rng.uniform(3, 5), gain * rng.uniform(0.8, 1.2)
                # Spread evenly around the scenario's own, so that the mean is that.
                decay = DECAY[scenario] * (0.9 + 0.2 * number / max(1, n - 1))
                losses = series(injected[entity], size, decay, level)
                if outlier and scenario == "once" and number == 0:
                    losses[steps > injected[entity][0] + 20] = 400.0
                columns.append((f"{entity}-{depth}", entity, depth, scenario, 2))
                nll.append(losses + common)
    for number in range(controls):
        for depth in GAIN:
            columns.append((f"control-{number}-{depth}", f"control-{number}", depth, "", 2))
            nll.append(np.full(len(steps), 4.0) + common)
    ids, entities, depths, scenarios, n_tokens = zip(*columns, strict=True)
    rows = tuple(tuple(map(float, row)) for row in np.array(nll).T)
    return AcquisitionRecord(
        ids, entities, depths, scenarios, n_tokens, injected, tuple(map(int, steps)), rows
    )


def groups(analysis):
    return {(group.scenario, group.depth): group for group in analysis.groups}


@pytest.fixture(scope="module")
def analysis():
    return analyse(make_record(), n_bootstrap=50)


def test_known_dynamics_are_given_back(analysis):
    found = groups(analysis)
    # In the order of the paper, whatever the order of the record.
    assert list(found) == [(s, d) for s in FIRSTS for d in GAIN]
    for (scenario, depth), group in found.items():
        decay = DECAY[scenario]
        assert group.decay.decay_constant == pytest.approx(decay)
        assert group.decay.r2 == pytest.approx(1)
        assert group.threshold_steps.value == pytest.approx(10 ** (1 / decay))
        assert group.decay_constant.value == group.decay.decay_constant
        for time, kept in zip(analysis.times[1:], group.retainability[1:], strict=True):
            assert kept.value == pytest.approx(1 - decay * math.log10(time))
        assert len(group.effectivity) == len(FIRSTS[scenario])
        for gained in group.effectivity:
            assert gained.value == pytest.approx(GAIN[depth], rel=0.2)
            assert gained.low < gained.value < gained.high
        assert (group.n_probes, group.n_entities, group.n_not_acquired) == (8, 8, 0)
        assert set(group.n_outliers) == {0}


def test_directions_and_units(analysis):
    group = analysis.groups[0]
    directions = {
        name: (getattr(group, name).unit, getattr(group, name).higher_is_better)
        for name in ("mean_effectivity", "decay_constant", "r2", "threshold_steps")
    }
    assert directions == {
        "mean_effectivity": ("nats/token", True),
        "decay_constant": ("fraction/decade", False),
        "r2": ("fraction", True),
        "threshold_steps": ("steps", True),
    }
    assert {found.unit for found in group.retainability} == {"fraction"}


def test_the_window_is_no_longer_than_the_distance_of_exposures(analysis):
    assert analysis.window == 10
    # All groups are followed over the same times: to the end from the last exposure and window.
    assert analysis.times == tuple(range(0, LAST - 44 - 10 + 1, EVERY))
    once = make_record()
    keep = [index for index, scenario in enumerate(once.scenarios) if scenario == "once"]
    columns = ("probe_ids", "entities", "depths", "scenarios", "n_tokens")
    only = {name: tuple(getattr(once, name)[i] for i in keep) for name in columns}
    record = AcquisitionRecord(
        **only,
        injection_steps={e: s for e, s in once.injection_steps.items() if e.startswith("once")},
        steps=once.steps,
        nll=tuple(tuple(row[i] for i in keep) for row in once.nll),
    )
    assert analyse(record, n_bootstrap=2).window == 50


def test_curves_are_aligned_at_each_facts_first_exposure(analysis):
    group = groups(analysis)["duplicated", "verbatim"]
    at = dict(zip(group.curve_steps, group.curve, strict=True))
    assert group.injections == (0, 10, 20)
    # The half that is injected four steps later must not smear the step.
    assert at[0] == pytest.approx(0) and at[-10] == pytest.approx(0)
    assert at[2] == pytest.approx(group.effectivity[0].value)
    assert at[22] == pytest.approx(sum(found.value for found in group.effectivity))


def test_an_outlier_is_left_out_of_retainability_and_counted():
    plain, spoilt = (
        groups(analyse(make_record(outlier=outlier), n_bootstrap=20)) for outlier in (False, True)
    )
    group = spoilt["once", "verbatim"]
    assert group.n_outliers[-1] == 1
    rest = DECAY["once"] * (0.9 + 0.2 * np.mean([1, 2, 3, 4, 5, 6, 7]) / 7)
    assert group.decay.decay_constant == pytest.approx(rest, rel=0.02)
    assert spoilt["duplicated", "verbatim"] == plain["duplicated", "verbatim"]


def test_intervals_come_from_drawing_entities(analysis):
    """The interval of the decay constant against a plain bootstrap loop, draw by draw."""
    rng = np.random.default_rng(3)
    record = make_record()
    noisy = tuple(tuple(v + rng.normal(0, 0.05) for v in row) for row in record.nll)
    record = AcquisitionRecord(**{**vars(record), "nll": noisy})
    analysis = analyse(record, n_bootstrap=400)
    group = groups(analysis)["duplicated", "verbatim"]
    times = np.array(analysis.times)
    losses, columns = np.array(record.nll), []
    of_probes = zip(record.scenarios, record.depths, record.entities, strict=True)
    for number, (scenario, depth, entity) in enumerate(of_probes):
        if (scenario, depth) != ("duplicated", "verbatim"):
            continue
        column, exposures = losses[:, number], record.injection_steps[entity]
        window = slice(exposures[-1] // EVERY + 1, exposures[-1] // EVERY + 6)
        best = window.start + int(np.argmin(column[window]))
        before = column[exposures[0] // EVERY]
        columns.append((before - column[best + times // EVERY]) / (before - column[best]))
    curves = np.array(columns)
    expected = fit_decay(times, mean_retainability(curves).values)
    assert group.decay == pytest.approx(expected)
    draws = [
        fit_decay(times, mean_retainability(curves[rng.integers(0, 8, 8)]).values).decay_constant
        for _ in range(2000)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    width = high - low
    assert group.decay_constant.low == pytest.approx(low, abs=0.25 * width)
    assert group.decay_constant.high == pytest.approx(high, abs=0.25 * width)


def test_what_facts_gain_that_were_not_injected_stands_beside_the_curve():
    drifting = make_record(drift=1.5, controls=3)
    seen = analyse(drifting, n_bootstrap=5).groups[0]
    assert max(seen.control_curve) - min(seen.control_curve) > 2
    assert len(seen.control_curve) == len(seen.curve)
    assert not analyse(make_record(), n_bootstrap=5).groups[0].control_curve


@pytest.mark.slow
def test_what_controls_gain_can_be_subtracted():
    drifting = analyse(make_record(drift=1.5, controls=3), n_bootstrap=5, against_control=True)
    for group, plain in zip(drifting.groups, analyse(make_record()).groups, strict=True):
        assert group.decay == pytest.approx(plain.decay)
    with pytest.raises(GradlocError, match="no control was recorded"):
        analyse(make_record(), against_control=True)


def test_facts_that_are_not_forgotten_have_no_threshold():
    record = make_record()
    nll = np.array(record.nll)
    own = [i for i, s in enumerate(record.scenarios) if s == "once"]
    nll[:, own] = np.linspace(5, 1, len(nll))[:, None]
    record = AcquisitionRecord(**{**vars(record), "nll": tuple(map(tuple, nll))})
    group = groups(analyse(record, n_bootstrap=5))["once", "verbatim"]
    assert group.decay.decay_constant < 0
    assert group.threshold_steps.value is None
    assert "does not fall" in group.threshold_steps.note


def test_facts_that_were_never_learned_have_no_retainability():
    record = make_record(n=3)
    nll = np.array(record.nll)
    own = [i for i, s in enumerate(record.scenarios) if s == "once"]
    nll[:, own] = np.linspace(1, 5, len(nll))[:, None]
    record = AcquisitionRecord(**{**vars(record), "nll": tuple(map(tuple, nll))})
    analysis = analyse(record, n_bootstrap=5)
    group = groups(analysis)["once", "verbatim"]
    assert group.n_not_acquired == group.n_probes == 3
    assert group.decay_constant.value is None and group.retainability[0].value is None
    assert "3 learned nothing" in str(acquisition_page(analysis, "x"))


def test_every_figure_of_the_machine_form_says_what_it_is(analysis):
    data = json.loads(json.dumps(analysis.to_dict(), allow_nan=False))
    assert (data["kind"], data["format"]) == ("acquisition_analysis", 1)
    fields = {"value", "low", "high", "n", "unit", "higher_is_better", "note"}
    group = data["groups"][0]
    shown = [*group["effectivity"], *group["retainability"]]
    shown += [group[n] for n in ("mean_effectivity", "decay_constant", "r2", "threshold_steps")]
    assert all(set(found) == fields for found in shown) and len(shown) > 50
    assert group["decay"]["slope_standard_error"] < 1e-12


@pytest.mark.parametrize(
    "change",
    [
        {"scenarios": ("",) * 48},
        {"steps": (), "nll": ()},
    ],
)
def test_a_record_that_says_too_little(change):
    record = AcquisitionRecord(**{**vars(make_record()), **change})
    with pytest.raises(GradlocError, match="says nothing of injected facts"):
        analyse(record)


def test_a_training_that_ends_too_soon():
    record = make_record()
    with pytest.raises(GradlocError, match="ends at step 50, less than the window of 10 steps"):
        analyse(dataclasses.replace(record, steps=record.steps[:26], nll=record.nll[:26]))


# ---- the page -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "acquisition.html"
    record = make_record(drift=0.1, controls=3)
    named = tuple(name.replace("once", "</script><script>hacked=1") for name in record.probe_ids)
    record = AcquisitionRecord(**{**vars(record), "probe_ids": named})
    analysis = analyse(record, n_bootstrap=20)
    return write_page(acquisition_page(analysis, "<b>my</b> run"), path).as_uri()


PICTURES = {
    "learning-once", "learning-duplicated", "learning-paraphrased", "retention-verbatim",
    "retention-paraphrase",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_in_a_browser(browser, address):  # noqa: F811
    show(browser, address)
    drawn = browser.execute_script(
        "return Array.from(document.querySelectorAll('[data-picture]'), e => [e.dataset.picture,"
        " e.dataset.drawn, e.parentElement.getAttribute('aria-label'),"
        " e.querySelector('svg').clientHeight])"
    )
    assert {row[0] for row in drawn} == PICTURES
    assert all(state == "yes" and len(label) > 60 and h > 150 for _, state, label, h in drawn)

    def count(picture, marks):
        return browser.execute_script(
            "return document.querySelectorAll(`[data-picture='${arguments[0]}'] svg"
            " .${arguments[1]}.role-mark path, [data-picture='${arguments[0]}'] svg"
            " .${arguments[1]}.role-mark line`).length",
            picture,
            marks,
        )

    # Three injections and the zero line; two depths with their controls; three lines and fits.
    assert count("learning-duplicated", "mark-rule") == 4
    assert count("learning-duplicated", "mark-line") == 4
    assert count("retention-verbatim", "mark-line") == 6
    assert browser.get_log("browser") == []
    assert browser.execute_script("return typeof window.hacked") == "undefined"
    assert browser.find_element("tag name", "h1").text == "<b>my</b> run"


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_never_scrolls_sideways(browser, address, width):  # noqa: F811
    show(browser, address, width=width)
    browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
    wide, window = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert window == width and wide <= window


def test_the_command_writes_both_files_and_shows_the_tables(tmp_path, capsys):
    make_record(n=3).save(tmp_path / "my-run" / RECORD_FILE)
    main(["analyze", str(tmp_path / "my-run"), "--window", "6"])
    done = capsys.readouterr().out
    assert "paraphrased" in done and "acquisition.html" in done
    written = json.loads((tmp_path / "my-run" / "acquisition_analysis.json").read_text())
    assert (written["kind"], written["window"]) == ("acquisition_analysis", 6)
    assert "<h1>my-run</h1>" in (tmp_path / "my-run" / "acquisition.html").read_text()
    with pytest.raises(SystemExit, match="no such file"):
        main(["analyze", str(tmp_path)])
