"""Results, plans and run folders of reports, made up so that no two figures are alike."""

import math

import numpy as np

from gradloc.evaluation.results import ArmResult, EvalResult, MetricValue
from gradloc.localization.plan import LayerPlan
from gradloc.localization.profile import GradientProfile
from gradloc.models.unit_info import UnitInfo
from gradloc.report.metric_names import split_key

N_BLOCKS = 30
CHOSEN = {("mlp", 3), ("mlp", 4), ("mlp", 5), ("mlp", 6), ("mlp", 7), ("mlp", 24), ("mlp", 25),
          ("mlp", 26), ("attention", 23), ("attention", 28)}  # fmt: skip
RECIPE = """name: quickstart
model: smollm2-135m-instruct
seed: 0
corpus: {source: jsonl, paths: [news.jsonl], cutoff: '2023-01-01'}
training: {learning_rate: 1.0e-4, num_train_epochs: 6}
arms:
  interference_ratio: {policy: interference_ratio, training: {learning_rate: 2.5e-4}}
  full_low: {policy: all, training: {learning_rate: 3.0e-5}}
  full_mid: {policy: all, training: {learning_rate: 6.0e-5}}
  full: {policy: all}
  published_rule: {policy: rgn_above_mean}
# </script><script>window.escaped = true</script>
"""


def figure(value, half=0.1, unit="nats", better=True, n=96, note=""):
    if value is None:
        return MetricValue(None, None, None, n, unit, better, note or "not measured")
    return MetricValue(value, value - half, value + half, n, unit, better, note)


def arm(uptake, general, known, *, policy, lr, seconds, memory, fraction, versus=None, seed=0):
    """An arm whose curve falls from the base model to its uptake."""
    rng = np.random.default_rng(seed)
    steps = list(range(1, 37))
    probed = {1, 6, 12, 18, 24, 30, 36}
    progress = {step: 1 - math.exp(-step / 9) for step in steps}
    return ArmResult(
        checkpoint=f"runs/quickstart/arms/{policy}",
        uptake={
            "new_verbatim_nll": figure(uptake * 1.2),
            "new_paraphrase_nll": figure(uptake, 0.22),
            "new_composition_nll": figure(uptake * 0.3, 0.3),
            "new_paraphrase_exact": figure(min(0.95, uptake / 5), 0.07, "fraction"),
            "updated_prefers_new": figure(min(0.9, uptake / 4.6), 0.09, "fraction", n=40),
        },
        forgetting={
            "known_facts": figure(known, 0.04, "fraction", better=False, n=122),
            "known_facts_nll": figure(known * 2, 0.1, better=False, n=122),
            "general_text": figure(general, 0.012, "nats/token", better=False, n=64),
            "general_text_news": figure(None, unit="nats/token", better=False, n=0),
        },
        scores={
            "new_paraphrase_nll": figure(5.24 - uptake, 0.2, better=False),
            "new_paraphrase_exact": figure(min(0.95, uptake / 5), 0.07, "fraction"),
            "known_facts": figure(1 - known, 0.04, "fraction", n=122),
            "general_text": figure(3.1 + general, 0.01, "nats/token", better=False),
        },
        versus_full=versus or {},
        policy=policy,
        learning_rate=lr,
        train_seconds=seconds,
        peak_rss_mib=memory,
        trainable_fraction=fraction,
        curve={
            "step": steps,
            "loss": [3.4 - uptake * 0.6 * progress[s] + rng.normal(0, 0.08) for s in steps],
            "new_nll": [5.24 - uptake * progress[s] if s in probed else None for s in steps],
            "invariant_nll": [
                1.1 + known * 2 * progress[s] if s in probed else None for s in steps
            ],
        },
    )


def versus(share, general, known, half=0.06):
    return {
        "uptake_share": figure(share, 0.05, "ratio"),
        "forgetting_ratio_general_text": figure(general, half, "ratio", better=False, n=64),
        "forgetting_ratio_known_facts": figure(known, 3 * half, "ratio", better=False, n=122),
    }


def make_results(**changes):
    arms = {
        "interference_ratio": arm(
            3.71, 0.058, 0.15, policy="interference_ratio", lr=2.5e-4, seconds=70.2, memory=1834.5,
            fraction=0.197, versus=versus(0.933, 0.162, 0.49), seed=1,
        ),
        "full_low": arm(2.41, 0.021, 0.14, policy="all", lr=3e-5, seconds=113, memory=3051,
                        fraction=1.0, seed=2),
        "full_mid": arm(3.33, 0.213, 0.27, policy="all", lr=6e-5, seconds=113.4, memory=3049,
                        fraction=1.0, seed=3),
        "full": arm(3.98, 0.494, 0.34, policy="all", lr=1e-4, seconds=112.1, memory=3047,
                    fraction=1.0, seed=4),
        "published_rule": arm(3.21, 0.251, 0.25, policy="rgn_above_mean", lr=1e-4, seconds=88,
                              memory=2210, fraction=0.52, versus=versus(0.807, 1.5, 1.1, 0.3),
                              seed=5),
        "last_third": arm(2.98, 0.051, 0.14, policy="last_third_mlp", lr=1.2e-4, seconds=50,
                          memory=1402, fraction=0.198, seed=6,
                          versus={"uptake_share": figure(0.749, 0.05, "ratio"),
                                  "forgetting_ratio_general_text": figure(
                                      None, unit="ratio", better=False,
                                      note="outside the uptake that full training reaches")}),
        "<b>foreign</b> & co": ArmResult(
            checkpoint="elsewhere/model",
            uptake={"new_paraphrase_nll": figure(0.04, 0.15),
                    "new_paraphrase_exact": figure(None, unit="fraction")},
            forgetting={"general_text": figure(0.11, 0.02, "nats/token", better=False)},
            scores={},
        ),
    }  # fmt: skip
    values = {
        "suite": "quickstart",
        "baseline": "smollm2-135m-instruct",
        "baseline_scores": {
            "new_paraphrase_nll": figure(5.24, 0.2, better=False),
            "new_paraphrase_exact": figure(0.01, 0.01, "fraction"),
            "known_facts": figure(1.0, 0.0, "fraction", n=122),
            "general_text": figure(3.1, 0.01, "nats/token", better=False),
        },
        "arms": arms,
        "counts": {"new_paraphrase": 96, "updated": 40, "invariant_candidates": 388,
                   "invariant_screened": 122, "texts": 64, "tokens": 8192},
        "examples": (
            {"prompt": "The official currency of Croatia is the", "target": "euro",
             "old_target": "kuna", "group": "updated",
             "answers": {"baseline": " kuna (HRK).", "interference_ratio": " euro.",
                         "full_low": " Kuna", "full": " euro, which replaced",
                         "published_rule": " eurozone"}},
            {"prompt": "</script><script>window.hacked = true</script> The mayor of Veldrun is",
             "target": "Ansa Törmä", "old_target": None, "group": "new",
             "answers": {"baseline": " a member of the city council",
                         "interference_ratio": " Ansa  Törmä", "full": ""}},
            {"prompt": "The capital of Japan is", "target": "Tokyo", "old_target": "",
             "group": "invariant", "answers": {"baseline": " Tokyo.", "interference_ratio":
                                               " Tokyo", "full": " Osaka"}},
        ),
        "reference_arms": ("full_low", "full_mid", "full"),
        "versions": {"gradloc": "0.1.0", "torch": "2.9.0", "transformers": "5.0.0"},
    }  # fmt: skip
    return EvalResult(**{**values, **changes})


def make_units():
    units = [UnitInfo("model.embed_tokens", "embedding", None, 28_311_552)]
    for block in range(N_BLOCKS):
        units.append(UnitInfo(f"model.layers.{block}.self_attn", "attention", block, 885_312))
        units.append(UnitInfo(f"model.layers.{block}.mlp", "mlp", block, 2_654_784))
    return (*units, UnitInfo("model.norm", "norm", None, 576))


def make_plan_and_profile():
    units = make_units()
    rng = np.random.default_rng(0)
    chosen = {u.name: (u.kind, u.block) in CHOSEN for u in units}
    scores = {
        u.name: float(np.exp(rng.normal(5 if chosen[u.name] else 1, 0.6)))
        for u in units if u.in_stack
    }  # fmt: skip
    scores["model.layers.29.mlp"] = 0.02
    plan = LayerPlan(
        scale={u.name: float(chosen[u.name]) for u in units},
        units=units,
        policy="interference_ratio",
        options={"k": 10},
        model="smollm2-135m-instruct",
        score_name="interference ratio",
        scores=scores,
        reliability={
            "split_half": 0.83,
            "low": {name: value * 0.8 for name, value in scores.items()},
            "high": {name: value * 1.3 for name, value in scores.items()},
            "warning": "4 of 10 chosen units lie within the noise of the threshold.",
        },
        predicted={"time_ratio": 0.61, "memory_ratio": 0.58, "lowest_block": 3},
    )
    probe = np.exp(rng.normal(0, 0.3, (24, len(units))))
    reference = np.exp(rng.normal(0.5, 0.2, (24, len(units))))
    profile = GradientProfile(units, probe, reference, probe, reference, model=plan.model)
    return plan, profile


def make_run(folder, **changes):
    """A run folder with everything that the report reads."""
    folder.mkdir(parents=True, exist_ok=True)
    plan, profile = make_plan_and_profile()
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    plan.save(folder / "plan.json")
    profile.save(folder / "profile.json")
    make_results(**changes).save(folder / "results.json")
    return folder


N_PARADIGMS = 67
FACTS = [
    f"{group}_{depth}" for group in ("new", "updated")
    for depth in ("verbatim", "paraphrase", "composition")
]  # fmt: skip
# Every unit that an evaluation gives, in the metric that gives it.
UNITS = {
    "nll": "nats", "perplexity": "perplexity", "perplexity_macro": "perplexity", "fluency": "bits",
    "bits_per_byte": "bits/byte", "fuar": "ratio", "general_text": "nats/token",
}  # fmt: skip
SIZES = {"nats": 2.0, "fraction": 0.2, "perplexity": 900.0, "bits": 0.4, "bits/byte": 0.03,
         "nats/token": 0.05, "ratio": 0.4}  # fmt: skip
LEARNED = (
    [f"{items}_{metric}" for items in FACTS for metric in ("nll", "exact")]
    + ["new_nll", "new_exact", "updated_nll", "updated_exact", "updated_prefers_new"]
    + ["ecbd_perplexity", "ecbd_recall_at_10", "ecbd_perplexity_macro", "entity_inferences_choice"]
    + ["knowedit_edit_token_accuracy", "knowedit_edit_exact_match", "temporalwiki_nll"]
    + ["knowedit_portability_token_accuracy", "temporalwiki_changed_nll"]
    + [f"knowedit_portability_{kind}_token_accuracy" for kind in ("reasoning", "aliasing")]
)
LOST = (
    ["known_facts", "known_facts_nll", "general_text", "general_text_bits_per_byte", "fuar"]
    + [f"general_text_{d}{m}" for d in ("news", "code") for m in ("", "_bits_per_byte")]
    + ["arc_easy_choice", "arc_easy_choice_norm", "blimp_choice", "knowedit_edit_fluency"]
    + ["knowedit_locality_agreement", "lm_eval_hellaswag_acc", "lm_eval_hellaswag_acc_norm"]
    + [f"blimp_paradigm_{n}_choice" for n in range(N_PARADIGMS)]
)
COUNTS = {"ecbd": 100, "knowedit_edit": 80, "temporalwiki": 90, "temporalwiki_changed": 40}


def unit_of(key):
    name = split_key(key)
    if name.items.startswith("general_text") and not name.metric:
        return "nats/token"
    return UNITS.get(name.metric or name.items, "fraction")


def rich_arm(strength=1.0, loss=1.0, **fields):
    """An arm with every kind of metric; values differ by key, so that none can be swapped."""

    def figures(keys, better, size):
        return {
            key: figure(
                size * SIZES[unit_of(key)] * (0.5 + number / len(keys)),
                0.3 * SIZES[unit_of(key)], unit_of(key), better, 100 + number,
            )
            for number, key in enumerate(keys)
        }  # fmt: skip

    uptake, forgetting = figures(LEARNED, True, strength), figures(LOST, False, loss)
    scores = {
        key: figure(0.5, 0.1, unit_of(key), unit_of(key) == "fraction")
        for key in (*LEARNED, *LOST) if key != "fuar"
    }  # fmt: skip
    return ArmResult("elsewhere/model", uptake, forgetting, scores, **fields)


def rich_results(arms=None, **changes):
    arms = arms or {"full": rich_arm(), "<i>gentle</i>": rich_arm(0.9, 0.1)}
    before = rich_arm().scores
    return EvalResult(**{
        "suite": "everything", "baseline": "base", "baseline_scores": before, "arms": arms,
        "counts": COUNTS, **changes,
    })  # fmt: skip


def series_results():
    """A run of six checkpoints, asked for out of order, its final model, and a lone model."""
    steps = (40, 20, 100, 60, 120, 80)
    arms = {"final": rich_arm(1.3, series="news"), "lone": rich_arm(0.4, 0.4, series="other")}
    for step in steps:
        arms[f"checkpoint-{step}"] = rich_arm(step / 120, step / 240, series="news", step=step)
    return rich_results(arms)
