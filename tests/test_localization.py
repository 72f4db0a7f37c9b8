"""Figures of the localization analysis equal hand loops, and known differences are found."""

import json
import math

import dated_world
import numpy as np
import pytest
import torch
from conftest import build_model
from localization import measure as localization_measure
from localization import resampling as statistics
from localization.analysis import analyse_localization
from localization.figures import GroupNorms, contrasts_of, localization_figures
from localization.measure import by_turns, measure_groups
from localization.tables import answer, localization_tables
from locate_facts import main
from scipy.stats import spearmanr

from gradloc.data.probes import Probe, ProbeSet
from gradloc.data.spans import encode_probe
from gradloc.errors import MeasurementError
from gradloc.localization.plan import LayerPlan
from gradloc.models import load_model, load_tokenizer
from gradloc.models.units import find_units

N_UNITS, N = 10, 16
GROUP_NAMES = ("new", "updated", "invariant")


def lognormal(seed, factor=1.0, n=N, n_units=N_UNITS, noise=0.3):
    """Norms whose units share what the sequence adds, as gradients do, with a known profile."""
    rng = np.random.default_rng(seed)
    profile = np.linspace(0.5, 1.5, n_units)
    shared = rng.normal(0, noise, (n, 1))
    return profile * factor * np.exp(shared + rng.normal(0, noise / 2, (n, n_units)))


def group(seed, factor=1.0, n=N, entities=None):
    return GroupNorms(
        lognormal(seed, factor, n),
        lognormal(seed + 1, factor, n),
        lognormal(seed + 2),
        list(range(n)) if entities is None else entities,
    )


@pytest.fixture(scope="module")
def planted():
    """Units 2 and 7 pull three times as hard in updated facts, and all units a little."""
    factor = np.full(N_UNITS, 1.5)
    factor[[2, 7]] *= 3
    groups = {"updated": group(10, factor), "invariant": group(20), "missed": group(40, factor)}
    found = localization_figures(groups, lognormal(30), n_splits=50, n_bootstrap=1000)
    return groups, found


def contrast(found, group, control, variant, centred):
    return next(
        c for c in found.contrasts
        if (c.group, c.control, c.variant, c.centred) == (group, control, variant, centred)
    )  # fmt: skip


def test_profiles_equal_a_hand_loop(planted):
    groups, found = planted
    reference = lognormal(30)
    for name, norms in groups.items():
        for unit in range(N_UNITS):

            def mean(rows, unit=unit):
                return sum(row[unit] for row in rows) / len(rows)

            hand = {
                "norm": mean(norms.span),
                "rgn": mean(norms.span) / mean(reference),
                "rgn_matched": mean(norms.span) / mean(norms.matched),
                "rgn_whole": mean(norms.whole) / mean(reference),
            }
            for variant, value in hand.items():
                assert found.profiles[name][variant].values[unit] == pytest.approx(value)
    shown = found.profiles["updated"]["rgn"]
    assert shown.max_over_mean == pytest.approx(max(shown.values) / np.mean(shown.values))


def test_correlations_are_those_of_scipy(planted):
    _, found = planted
    profiles = found.profiles
    rho = spearmanr(profiles["updated"]["norm"].values, profiles["updated"]["rgn"].values)
    assert found.between_variants["updated"]["norm rgn"] == pytest.approx(rho.statistic)
    rho = spearmanr(profiles["updated"]["rgn"].values, profiles["invariant"]["rgn"].values)
    assert found.between_groups["rgn"]["updated invariant"] == pytest.approx(rho.statistic)


def test_ranks_of_rows_with_ties_are_those_of_scipy():
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 4, (5, 12)), rng.integers(0, 4, (5, 12))
    expected = [spearmanr(a, b).statistic for a, b in zip(left, right, strict=True)]
    assert statistics.spearman_rows(left, right) == pytest.approx(expected)


@pytest.mark.parametrize("variant", ["rgn", "rgn_matched", "rgn_whole"])
def test_planted_units_stand_out_and_no_others(planted, variant):
    _, found = planted
    level = contrast(found, "updated", "invariant", variant, False)
    shape = contrast(found, "updated", "invariant", variant, True)
    assert {2, 7} <= set(np.flatnonzero(level.above))
    assert set(np.flatnonzero(shape.above)) == {2, 7}
    assert shape.difference == pytest.approx(level.difference - level.difference.mean())
    assert shape.mean == level.mean == pytest.approx(level.difference.mean())
    assert level.mean_low < level.mean < level.mean_high


def test_facts_that_are_unknown_without_being_new_show_no_difference(planted):
    _, found = planted
    for centred in (False, True):
        against = contrast(found, "updated", "missed", "rgn", centred)
        assert not against.above.any()
        assert not against.below.any()


def test_against_text_the_difference_is_the_logarithm_of_rgn(planted):
    groups, found = planted
    for name in groups:
        for variant in ("rgn", "rgn_matched", "rgn_whole"):
            level = contrast(found, name, "text", variant, False)
            values = found.profiles[name][variant].values
            assert level.difference == pytest.approx(np.log(values))
            shape = contrast(found, name, "text", variant, True)
            assert shape.difference == pytest.approx(np.log(values) - np.log(values).mean())
    assert {2, 7} <= set(np.flatnonzero(contrast(found, "updated", "text", "rgn", True).above))
    # Text is resampled as well: noisier text makes RGN less certain.
    noisy = contrasts_of("new", "text", "rgn", {"new": group(5)}, lognormal(30, noise=2.0))[0]
    quiet = contrasts_of("new", "text", "rgn", {"new": group(5)}, lognormal(30))[0]
    assert (noisy.high - noisy.low > 2 * (quiet.high - quiet.low)).all()


def test_a_divisor_that_both_groups_share_cancels(planted):
    groups, found = planted
    rgn = contrast(found, "updated", "invariant", "rgn", False)
    raw = np.log(groups["updated"].span.mean(0) / groups["invariant"].span.mean(0))
    assert rgn.difference == pytest.approx(raw)
    other = contrasts_of(
        "updated", "invariant", "rgn", groups, lognormal(99, noise=3.0), n_bootstrap=1000
    )[0]
    # Noisier reference text widens nothing, since both groups are divided by the same draws.
    assert other.high - other.low == pytest.approx(rgn.high - rgn.low)


def test_simultaneous_intervals_equal_a_hand_loop():
    rng = np.random.default_rng(3)
    difference = rng.normal(size=6)
    replicates = difference + rng.normal(size=(200, 6)) * np.arange(1, 7)
    _, low, high, p = statistics.simultaneous(difference, replicates)
    spread = [np.std(replicates[:, u], ddof=1) for u in range(6)]
    largest = sorted(
        max(abs(row[u] - difference[u]) / spread[u] for u in range(6)) for row in replicates
    )
    reach = largest[math.ceil(0.95 * 199)]
    for u in range(6):
        assert high[u] - difference[u] == pytest.approx(reach * spread[u])
        assert low[u] == pytest.approx(2 * difference[u] - high[u])
        own = abs(difference[u]) / spread[u]
        assert p[u] == pytest.approx(sum(t >= own for t in largest) / 200)


@pytest.mark.parametrize("centred", [False, True])
def test_all_units_together_are_wrong_in_one_case_of_twenty(centred):
    wrong = 0
    for trial in range(60):
        groups = {"new": group(10_000 + 10 * trial), "invariant": group(50_000 + 10 * trial)}
        found = contrasts_of("new", "invariant", "rgn", groups, lognormal(1), n_bootstrap=200)
        wrong += bool((found[centred].above | found[centred].below).any())
    # 3 of 60, and some more from so few sequences; unit by unit at 95 % it is 20 and more.
    assert wrong <= 10


def test_copies_of_an_entity_make_nothing_surer():
    """Eight facts three times over are eight facts."""
    once, factor = group(10, n=8), np.linspace(1, 1.5, N_UNITS)
    often = GroupNorms(
        np.repeat(once.span, 3, 0), np.repeat(once.whole, 3, 0), once.matched,
        [i // 3 for i in range(24)],
    )  # fmt: skip
    control = group(20, factor)
    widths = [
        np.ptp([found.low, found.high], axis=0)
        for new in (once, often)
        for found in contrasts_of(
            "new", "invariant", "rgn", {"new": new, "invariant": control}, lognormal(30)
        )[:1]
    ]
    assert widths[1] == pytest.approx(widths[0])
    of = [
        statistics.split_half(new.span, new.entities, lognormal(30), n_splits=300)[0]
        for new in (once, often)
    ]
    assert of[1] == pytest.approx(of[0], abs=0.03)


def test_split_half_is_stepped_up_and_its_interval_holds_the_truth():
    """Against profiles that are drawn anew: their correlation is what reliability means."""

    def draw(seed, n_units=40, noise=0.12):
        rng = np.random.default_rng(seed)
        profile = np.exp(np.random.default_rng(0).normal(0, 0.05, n_units))
        return profile * np.exp(rng.normal(0, noise, (24, n_units)))

    again = [
        spearmanr(draw(2 * s + 1).mean(0), draw(2 * s + 2).mean(0)).statistic for s in range(100)
    ]
    truth = np.mean(again)
    assert 0.6 < truth < 0.9
    found = [statistics.split_half(draw(500 + s), range(24), n_splits=50, n_bootstrap=100)
             for s in range(20)]  # fmt: skip
    values, low, high = (np.array(column) for column in zip(*found, strict=True))
    assert values.mean() == pytest.approx(truth, abs=0.05)
    assert (low < values).mean() > 0.8
    assert (values < high).mean() > 0.8
    assert ((low <= truth) & (truth <= high)).mean() >= 0.8


def test_split_half_of_noise_is_none():
    rng = np.random.default_rng(0)
    noise = np.exp(rng.normal(size=(24, 60)))
    value, low, high = statistics.split_half(noise, range(24))
    assert abs(value) < 0.35
    assert low < 0.3


def test_too_few_entities_and_units_without_gradient_are_refused():
    groups = {"new": group(1, entities=[0, 1, 2] * 5 + [2]), "invariant": group(2)}
    with pytest.raises(MeasurementError, match="'new' has 3 entities; at least 4"):
        localization_figures(groups, lognormal(3))
    empty = group(1)
    empty.whole[:, 4] = 0
    with pytest.raises(MeasurementError, match="new whole: unit 4 has no gradient"):
        localization_figures({"new": empty, "invariant": group(2)}, lognormal(3))
    with pytest.raises(MeasurementError, match="3 reference texts"):
        localization_figures({"new": group(1), "invariant": group(2)}, lognormal(3)[:3])


def test_turns_take_one_probe_of_every_entity_first():
    probes = ProbeSet(
        Probe(f"{entity}{i}", "new", "Ask", ("a",), entity=entity)
        for entity, n in (("A", 5), ("B", 2), ("C", 1))
        for i in range(n)
    )
    order = [probe.entity for probe in by_turns(probes, seed=3)]
    assert set(order[:3]) == {"A", "B", "C"}
    assert set(order[3:5]) == {"A", "B"}
    assert order[5:] == ["A"] * 3
    assert by_turns(probes, seed=3) == by_turns(probes, seed=3) != by_turns(probes, seed=4)


# --- with a model ---------------------------------------------------------------------------


WORDS = [f"{a}{b}{c}" for a in "abcdefgh" for b in "ae" for c in "qxyz"]
TEXTS = [f"The {w} stands by the {v}." for w, v in zip(WORDS, WORDS[::-1], strict=True)]


def make_facts(model, tokenizer):
    """Probes, and those among the invariant ones of which the model has the answer right."""
    asked = [
        Probe(f"{name}-{w}", name, f"{name[:2]} {w} is", (answer,), entity=w)
        for name, answer in (("new", "Kro"), ("updated", "Vum"))
        for w in WORDS[:6]
    ]
    right, wrong = [], []
    for word in WORDS:
        # No blank is put behind a bracket, so that the answer is the one next token.
        prompt = f"{word} is ("
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer(prompt)["input_ids"]])).logits[0, -1]
        said = tokenizer.decode(logits.argmax())
        other = "q" if said != "q" else "r"
        if len(said) == 1 and not said.isspace():
            right.append(Probe(f"right-{word}", "invariant", prompt, (said,), entity=word))
        wrong.append(Probe(f"wrong-{word}", "invariant", prompt, (other,), entity=f"{word} too"))
    assert len(right) >= 6
    return ProbeSet([*asked, *wrong[:9], *right[:6]]), right[:6], wrong[:9]


@pytest.fixture(scope="module")
def facts(character_tokenizer):
    model = build_model("llama")
    probes, right, wrong = make_facts(model, character_tokenizer)
    return model, probes, TEXTS, (right, wrong)


def one_norm(model, ids, labels):
    """Gradient norm of each unit of the stack for one sequence, from autograd itself."""
    model.zero_grad()
    model(input_ids=ids, labels=labels).loss.backward()
    return [
        math.sqrt(sum(float((p.grad**2).sum()) for p in unit.parameters.values()))
        for unit in find_units(model)
        if unit.info.in_stack
    ]


def test_norms_equal_autograd_on_one_sequence_at_a_time(facts, character_tokenizer):
    model, probes, texts, (right, wrong) = facts
    measured = measure_groups(model, character_tokenizer, probes, texts, n=6, progress=False)
    assert set(measured.groups) == {"new", "updated", "invariant", "missed"}
    assert set(measured.facts["invariant"].probe_ids) == {p.id for p in right}
    assert set(measured.facts["missed"].probe_ids) <= {p.id for p in wrong}
    assert measured.facts["invariant"].right == 1
    assert measured.facts["missed"].right == 0
    assert measured.facts["new"].answer_tokens == 3
    assert measured.reference.shape == (6, 6)
    by_id = {probe.id: probe for probe in probes}
    for name in ("new", "missed"):
        group, ids = measured.groups[name], measured.facts[name].probe_ids
        for row, probe_id in enumerate(ids[:2]):
            encoded = encode_probe(character_tokenizer, by_id[probe_id])
            tokens = torch.tensor([encoded.input_ids])
            labels = torch.where(torch.tensor([encoded.salient]), tokens, -100)
            assert group.span[row] == pytest.approx(one_norm(model, tokens, labels), rel=1e-4)
            assert group.whole[row] == pytest.approx(one_norm(model, tokens, tokens), rel=1e-4)
    assert not np.allclose(measured.groups["new"].matched, measured.groups["missed"].matched)


def test_matched_spans_are_as_long_as_the_groups_answers(facts, character_tokenizer, monkeypatch):
    model, probes, texts, _ = facts
    seen = []

    def record(model, rows, **options):
        seen.append(rows)
        return measure(model, rows, **options)

    measure = localization_measure.measure_gradients
    monkeypatch.setattr(localization_measure, "measure_gradients", record)
    measure_groups(model, character_tokenizer, probes, texts, n=6, progress=False)
    n_labelled = [sum(label != -100 for label in row["labels"]) for row in seen[0]]
    n_labelled = [n_labelled[start : start + 6] for start in range(0, len(n_labelled), 6)]
    # New, updated, known and missed facts, each: spans, whole sequences, matched spans.
    assert n_labelled[0] == n_labelled[2] == [3] * 6
    assert n_labelled[6] == n_labelled[8] == [1] * 6
    assert min(n_labelled[1]) > 3


def test_the_model_is_left_as_found_and_the_order_of_texts_is_drawn(facts, character_tokenizer):
    model, probes, texts, _ = facts
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    first = measure_groups(model, character_tokenizer, probes, texts, n=5, seed=1, progress=False)
    again = measure_groups(model, character_tokenizer, probes, texts, n=5, seed=1, progress=False)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert np.array_equal(first.reference, again.reference)
    other = measure_groups(model, character_tokenizer, probes, texts, n=5, seed=2, progress=False)
    assert not np.array_equal(first.reference, other.reference)


def test_without_known_or_new_facts_the_message_says_what_is_missing(facts, character_tokenizer):
    model, probes, texts, (right, _) = facts
    new = [probe for probe in probes if probe.group == "new"]
    with pytest.raises(MeasurementError, match=r"has 3 of 3 invariant facts right.*4 entities"):
        measure_groups(
            model, character_tokenizer, ProbeSet([*new, *right[:3]]), texts, progress=False
        )
    with pytest.raises(MeasurementError, match="found 0 new, 0 updated"):
        measure_groups(model, character_tokenizer, ProbeSet(right), texts, progress=False)
    with pytest.raises(MeasurementError, match="0 reference texts"):
        measure_groups(model, character_tokenizer, probes, [" ", "x"], progress=False)


@pytest.fixture(scope="module")
def analysis(facts, character_tokenizer):
    model, probes, texts, _ = facts
    return analyse_localization(
        model, character_tokenizer, probes, texts, n=6, n_bootstrap=200, progress=False
    )


def test_the_answer_counts_units_as_the_contrasts_do(analysis):
    lines = answer(analysis)
    level = analysis.contrast("updated")
    text = analysis.contrast("updated", "text")
    assert f"in {int(text.above.sum())} of 6 units" in lines[0]
    matched = analysis.contrast("updated", "text", "rgn_matched")
    assert lines[0].endswith(f"as the answers in {int(matched.above.sum())}.")
    assert f"in {int(level.above.sum())} of 6 units" in lines[1]
    assert f"lower in {int(level.below.sum())}" in lines[1]
    assert len(lines) == 6
    row = next(
        row for row in analysis.to_dict()["figures"]["contrasts"]
        if (row["group"], row["control"], row["variant"], row["centred"])
        == ("updated", "invariant", "rgn", False)
    )  # fmt: skip
    assert row["n_above"] == level.above.sum()
    json.dumps(analysis.to_dict(), allow_nan=False)
    assert len(localization_tables(analysis)) == 3 + len(lines)


def test_the_script_writes_json_and_prints_tables(tmp_path, tiny_checkpoint, capsys):
    tokenizer = load_tokenizer(tiny_checkpoint)
    probes, *_ = make_facts(load_model(tiny_checkpoint), tokenizer)
    probes.save(tmp_path / "probes.jsonl")
    (tmp_path / "texts.txt").write_text("\n\n".join(TEXTS))
    arguments = [str(tiny_checkpoint), "--probes", f"{tmp_path}/probes.jsonl"]
    arguments += ["--reference", f"{tmp_path}/texts.txt", "--n", "5"]
    arguments += ["--out", f"{tmp_path}/found.json"]
    main(arguments)
    assert "RGN is higher for updated than for known facts in" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["facts"]["new"]["n"] == 5
    assert len(found["figures"]["profiles"]["new"]["rgn"]["values"]) == len(found["units"]) == 6
    with pytest.raises(SystemExit):
        main(arguments)
    assert "found.json exists" in capsys.readouterr().err


# --- evaluation/studies/dated_world.py ------------------------------------------------------


def test_in_the_dated_world_it_is_known_what_is_old_new_and_updated():
    world = dated_world.make_world(3, 24)
    past, news = "\n".join(world.background), "\n".join(world.update)
    groups = {name: list(world.probes.select(group=name)) for name in GROUP_NAMES}
    assert all(len(group) >= 12 for group in groups.values())
    for probe in groups["updated"]:
        assert f"{probe.prompt} {probe.old_targets[0]}." in past
        assert f"{probe.prompt} {probe.targets[0]}." not in past
        assert probe.targets[0] in news
        assert probe.old_targets != probe.targets
    for probe in groups["new"]:
        name = probe.entity.removeprefix("new ")
        assert name in news
        assert name not in past
        assert probe.targets[0] in news
    for probe in groups["invariant"]:
        assert probe.entity.removeprefix("invariant ") not in news
        assert f"{probe.prompt} {probe.targets[0]}." in past
    # Not one question stands in the update, and held-out texts stand nowhere else.
    assert not any(probe.prompt in news for probe in world.probes)
    assert not set(world.held_out) & set(world.background)
    world.probes.split_by_entity(0.3, 3).check_disjoint()


def test_means_over_seeds_leave_out_what_is_undefined_and_say_so():
    def figures(uptake, ratio):
        return {
            "uptake": {"value": uptake},
            "ratio_known_facts": {"value": ratio},
            "exact": {},
        }

    plans = {name: {"fraction": 0.5} for name in ("all", "random_0", "random_1")}
    seeds = [
        {"plans": plans, "arms": {"random_0 0.1": figures(1, 0.5), "random_1 0.1": figures(2, 1)}},
        {"plans": plans, "arms": {"random_0 0.1": figures(6, None), "all 0.1": figures(5, None)}},
    ]
    rows = {row["arm"]: row for row in dated_world.summary(seeds)}
    assert set(rows) == {"random 0.1", "all 0.1"}
    assert rows["random 0.1"]["uptake"] == {
        "mean": 3, "low": 1, "high": 6, "n": 3, "n_undefined": 0,
    }  # fmt: skip
    assert rows["random 0.1"]["ratio_known_facts"]["mean"] == 0.75
    assert rows["random 0.1"]["ratio_known_facts"]["n_undefined"] == 1
    assert dated_world.rounded({"a": (1.23456, 7)}) == {"a": [1.235, 7]}


def test_finished_seeds_are_kept_and_other_settings_refused(tmp_path):
    path = tmp_path / "out.json"
    assert dated_world.finished(path, {"steps": 5}) == {}
    path.write_text(json.dumps({"settings": {"steps": 5}, "seeds": [{"seed": 2, "arms": {}}]}))
    assert dated_world.finished(path, {"steps": 5}) == {2: {"seed": 2, "arms": {}}}
    with pytest.raises(SystemExit, match="made with other settings"):
        dated_world.finished(path, {"steps": 6})


def test_old_texts_on_others_are_learned_and_answer_nothing_that_is_asked():
    world = dated_world.make_world(3, 24)
    assert set(world.others) < set(world.background)
    others = "\n".join(world.others)
    assert not any(probe.prompt in others for probe in world.probes)
    named = {probe.entity.removeprefix(f"{probe.group} ") for probe in world.probes}
    assert not any(name in others for name in named)


@pytest.mark.slow
def test_arms_of_the_dated_world_are_protected_as_they_say():
    texts = ["The river Aven flows through Torel.", "Torel lies on the river Aven, near Mos."] * 4
    tokenizer = dated_world.make_tokenizer(texts)
    ends = {}
    for name in ("all", "protected_no_kl", "protected_all"):
        model = dated_world.make_model(0)
        start = {name: p.detach().clone() for name, p in model.named_parameters()}
        plan = LayerPlan(scale={unit.name: 1.0 for unit in find_units(model)})
        callbacks = dated_world.callbacks_of(name, plan, texts, texts)
        options = {"n_steps": 8, "rate": 1e-2, "batch": 2, "seed": 0, "callbacks": callbacks}
        dated_world.train(model, tokenizer, texts, **options)
        ends[name] = {n: (p.detach() - start[n]).norm() for n, p in model.named_parameters()}
    plain, projected, held = ends.values()
    for name, change in projected.items():
        if "norm" in name:
            assert change == 0 < plain[name]
        else:
            assert 0 < change < 0.9 * plain[name], name
            assert change != held[name]
