"""How each original function's vectors are checked against ``gradloc.evaluation.metrics``."""

import json
import math
import os
import re
from pathlib import Path

import numpy as np
from reference_inputs import read_lists, read_options

from evaluation.metrics.acquisition import decay
from evaluation.metrics.acquisition import exposures as acquisition
from evaluation.metrics.span_perplexity import perplexity
from gradloc.evaluation.metrics import editing, matching
from gradloc.evaluation.metrics.fuar import fuar

DEFAULT = Path(__file__).parents[2] / "shared" / "reference_vectors.json"
GIVEN = os.environ.get("GRADLOC_REFERENCE_VECTORS")
PATH = Path(GIVEN) if GIVEN else DEFAULT
FLOAT32, FLOAT64 = 1e-5, 1e-6  # tolerances, as the file states them


def read_vectors(path):
    """Vectors of a file, none where it is absent."""
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    return found["vectors"] if isinstance(found, dict) else found


def agrees(found, expected, tolerance=FLOAT64, where="output"):
    """Assert that a value is the expected one: numbers within a tolerance, the rest equal."""
    if isinstance(expected, dict):
        assert isinstance(found, dict) and set(found) >= set(expected), (
            f"{where}: no check computes {set(expected) - set(found)}"
        )
        for name, part in expected.items():
            agrees(found[name], part, tolerance, f"{where}.{name}")
    elif isinstance(expected, list):
        found = list(found)
        assert len(found) == len(expected), f"{where}: {found} and not {expected}"
        for place, part in enumerate(expected):
            agrees(found[place], part, tolerance, f"{where}[{place}]")
    elif isinstance(expected, (int, float)) and not isinstance(expected, bool):
        found = math.nan if found is None else found
        same = (math.isnan(found) and math.isnan(expected)) or math.isclose(
            found, expected, rel_tol=tolerance, abs_tol=tolerance
        )
        assert same, f"{where}: {found} and not {expected}"
    else:
        assert found == expected, f"{where}: {found!r} and not {expected!r}"


# --- acquisition ---------------------------------------------------------------------------


def check_outliers(vector):
    given = vector["input"]
    data, factor = (
        (given["data"], given.get("multiplier", 2.0)) if isinstance(given, dict) else (given, 2.0)
    )
    if isinstance(vector["output"], dict):
        found = {key: decay.remove_outliers(data, float(key)) for key in vector["output"]}
    else:
        found = decay.remove_outliers(data, float(np.ravel(factor)[0]))
    agrees(found, vector["output"])


def loss_series(given):
    """The losses of a vector's input: a list, a formula, or that of another vector."""
    if isinstance(given, dict):
        name = next(n for n in ("series", "v", "values", "losses", "ppls", "target") if n in given)
        return loss_series(given[name])
    if not isinstance(given, str):
        return given
    if found := re.match(r"\s*same (\w+) series", given):
        for other in read_vectors(PATH) + read_vectors(DEFAULT):
            words = re.split(r"\W+", f"{other['id']} {other['function']}")
            is_defined = not str(other["input"]).startswith("same ")
            same = other["function"].startswith("get_probe_measurements") and is_defined
            if same and found[1] in words:
                return loss_series(other["input"])
        raise AssertionError(f"no vector has the series that {given!r} speaks of")
    formula = re.split(r"[,;]\s*(?:interval|ex_idx|window|margin)\b", given)[0]
    return list(read_lists(formula).values())[-1]


def check_probe_measurements(vector):
    given, expected = vector["input"], vector["output"]
    options = {**read_options(vector["function"]), **read_options(json.dumps(given))}
    options |= {k: v for k, v in given.items() if k != "series"} if isinstance(given, dict) else {}
    once = "once" in vector["function"] or "ex_idx>=80" in vector["function"].replace(" ", "")
    if "ex_idx" in options:
        once = options["ex_idx"] >= 80
    elif not once:
        named = ("ex_idx<80", "ten", "dup", "para")
        once = not any(word in vector["function"].replace(" ", "") for word in named)
    losses = np.array(loss_series(given), float)
    # The original's schedule is fixed: ten injections, or one for the last forty facts.
    exposures = [0] if once else list(range(0, 1000, 100))
    window = options.get("window", options.get("margin", 50))
    if all(re.fullmatch(r"\d+", key) for key in expected):
        agrees({key: measured(losses, exposures, window, int(key)) for key in expected}, expected)
    else:
        agrees(measured(losses, exposures, window, options["interval"]), expected)


def measured(losses, exposures, window, t):
    """What the original collects of one probe, from our functions."""
    best = acquisition.local_acquisition_maximum(losses, exposures[-1], window)
    names = ("effectivity", "retainability_pct", "step_eff", "step_ret", "init", "min")
    if losses[best] == losses[0]:
        return {name: [] for name in names}  # it skips such a probe
    gains = [acquisition.effectivity(losses, step, window) for step in exposures]
    # It takes t = 50 for single injections, None without gain, and leaves out losses.
    kept = [
        float(acquisition.retainability(losses, step, 50, window)) if gain > 0 else None
        for step, gain in zip(exposures, gains, strict=True)
        if gain >= 0
    ]
    share = acquisition.retainability(losses, exposures, t, window, released=True)
    values = (gains, [100 * float(share)], gains, kept, [losses[0]], [losses[best]])
    return dict(zip(names, values, strict=True))


def check_trendline(vector):
    given = vector["input"]
    if isinstance(given, dict) and any(isinstance(part, str) for part in given.values()):
        given = "; ".join(f"{name}={part}" for name, part in given.items())
    lists = read_lists(given) if isinstance(given, str) else given
    if not isinstance(lists, dict):
        lists = {"x": range(1, len(lists) + 1), "y": lists}
    y = lists["y"]
    fit = decay.fit_decay(lists.get("x", range(1, len(y) + 1)), y)
    printed = (
        f"Slope: {fit.slope:.2f}, One Sigma: {fit.slope_standard_error:.4f}, R^2: {fit.r2:.2f}\n"
        f"x-intercept: {fit.log10_threshold:.2f}"
    )
    found = {
        "slope": fit.slope,
        "r2": fit.r2,
        "decay_constant_a": fit.decay_constant,
        "intercept": fit.intercept,
        "x_intercept_log10": fit.log10_threshold,
        "tau_steps": fit.threshold_steps,
        "se_slope": fit.slope_standard_error,
        "stdout": printed,
    }
    agrees({**found, "stdout": printed.strip()}, _stripped(vector["output"]))


def _stripped(output):
    return {k: part.strip() if isinstance(part, str) else part for k, part in output.items()}


# --- answers -------------------------------------------------------------------------------


def check_normalize(vector):
    if isinstance(vector["input"], str):
        agrees(matching.normalize_answer(vector["input"], released=True), vector["output"])
    else:
        found = [matching.normalize_answer(text, released=True) for text in vector["input"]]
        agrees(found, vector["output"])


def check_exact_match(vector):
    pairs = vector["input"] if isinstance(vector["input"][0], list) else [vector["input"]]
    found = [matching.exact_match(*pair, released=True) for pair in pairs]
    agrees(found, vector["output"] if isinstance(vector["output"], list) else [vector["output"]])


def check_token_f1(vector):
    found = [matching.token_f1(*pair, released=True) for pair in vector["input"]]
    agrees(found, vector["output"])


def check_fuar(vector):
    given, expected = vector["input"], vector["output"]
    before, rows = given["initial"], given["rows"]
    found = {
        name: fuar(*((before[task], row[task]) for task in ("IL", "UL", "NL")))
        for name, row in rows.items()
    }
    none = ("no gain", "no_gain", "None", None)
    expected = {name: None if part in none else part for name, part in expected.items()}
    # Given to four decimals.
    for name, part in expected.items():
        agrees(found[name], part, 5.1e-5 if part and round(part, 4) == part else FLOAT64, name)


# --- likelihoods ---------------------------------------------------------------------------


def check_total_perplexity(vector):
    agrees(perplexity.corpus_perplexity(vector["input"]), vector["output"])


def check_scorer(vector):
    nlls = []
    for row in vector["input"]:
        tokens = row["loss_per_token"]
        dropped = tokens[-1][0] == "<extra_id_1>"  # T5's end of the span
        nlls.append([loss for _, loss in (tokens[:-1] if dropped else tokens)])
    means = perplexity.example_means(nlls)
    pages = [row["ex_id"].split("_")[-3] for row in vector["input"]]
    found = {
        "perplexity_micro": perplexity.corpus_perplexity(nlls),
        "perplexity_macro": perplexity.macro_perplexity(means, pages),
    }
    types = perplexity.by_type(means, [row["span_type"] for row in vector["input"]])
    for name, group in types.items():
        found |= {f"n_{name}": group.n, f"perplexity_{name}": group.perplexity}
    agrees(found, vector["output"])


# --- editing -------------------------------------------------------------------------------


def check_fluency(vector):
    texts = vector["input"]["texts"] if isinstance(vector["input"], dict) else vector["input"]
    found = {
        "per_text": [editing.fluency([text]) for text in texts],
        "mean": editing.fluency(texts),
    }
    agrees(found, vector["output"])


def rules_in(text):
    return dict(re.findall(r"([^\s,;:]+)\s*->\s*([^\s,;:]+)", text))


def predicted_tokens(rules, items):
    """Likeliest and right tokens of each item's answer, from our scoring of a bigram model.

    Args:
        rules: Word -> the word that follows it; any other word is followed by ``[UNK]``.
        items: (prompt, answer) pairs.
    """
    # Imported here: the other checks need no torch.
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
    from transformers.modeling_outputs import CausalLMOutput

    from gradloc.data.probes import Probe
    from gradloc.evaluation.scoring import score_probes

    class Bigram(PreTrainedModel):
        config_class = PretrainedConfig

        def __init__(self, config, table):
            super().__init__(config)
            self.table = torch.nn.Embedding.from_pretrained(table)

        def get_input_embeddings(self):
            return self.table

        def forward(self, input_ids, attention_mask=None, **options):
            return CausalLMOutput(logits=self.table(input_ids))

    pairs = [" ".join(pair) for pair in items] + [" ".join(rule) for rule in rules.items()]
    words = ["[PAD]", "[UNK]", *dict.fromkeys(" ".join(pairs).split())]
    ids = {word: number for number, word in enumerate(dict.fromkeys(words))}
    backend = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]"
    )
    table = torch.zeros(len(ids), len(ids))
    for word, number in ids.items():
        table[number, ids[rules.get(word, "[UNK]")]] = 1.0
    model = Bigram(PretrainedConfig(vocab_size=len(ids)), table).eval()
    probes = [Probe(str(n), "new", prompt, (text,)) for n, (prompt, text) in enumerate(items)]
    columns = score_probes(model, tokenizer, probes, progress=False)
    names = list(ids)
    predicted = [[names[number] for number in row] for row in columns["predicted"]]
    gold = [answer.split() for _, answer in items]
    shares = [editing.token_accuracy(*row) for row in zip(predicted, gold, strict=True)]
    agrees(columns["token_accuracy"], shares)  # of the scoring itself
    return predicted, gold


def check_prediction_accuracy(vector):
    rules, found = rules_in(vector["input"]["model"]), []
    for prompts, targets in vector["input"]["calls"]:
        if isinstance(prompts, str):
            prompts, targets = [prompts], [targets]
        rows = predicted_tokens(rules, list(zip(prompts, targets, strict=True)))
        found.append([editing.token_accuracy(*row) for row in zip(*rows, strict=True)])
    agrees(found, vector["output"])


def check_locality(vector):
    given, expected = vector["input"], vector["output"]
    lists = given if isinstance(given, dict) and isinstance(given.get("pre"), list) else expected
    if "pre" in lists:
        pairs = zip(lists["post"], lists["pre"], strict=True)
        agrees([editing.agreement(post, pre) for post, pre in pairs], expected["locality"])
    if lists is given:
        return
    text = given if isinstance(given, str) else "; ".join(f"{k}: {v}" for k, v in given.items())
    before, after = re.split(r"\bpost(?:-edit)?\b", text, maxsplit=1)
    quoted = re.findall(r'"([^"]+)"', text)
    answers = quoted[-len(expected["locality"]) :]
    # Prompts are not told; those of the accuracy vectors end in "is".
    items = [("the capital of France is", answer) for answer in answers]
    pre, post = ({"is": "Paris"} | rules_in(half.split('"')[0]) for half in (before, after))
    predicted = [predicted_tokens(rules, items)[0] for rules in (pre, post)]
    found = [editing.agreement(two, one) for one, two in zip(*predicted, strict=True)]
    agrees(found, expected["locality"])


# --- dispatch ------------------------------------------------------------------------------

# Name of the original function -> check of its vectors.
CHECKS = {
    "remove_outliers_iqr": check_outliers,
    "get_probe_measurements": check_probe_measurements,
    "plot_trendline": check_trendline,
    "normalize_answer": check_normalize,
    "exact_match_score": check_exact_match,
    "_f1_score": check_token_f1,
    "FUAR": check_fuar,
    "compute_total_perplexity": check_total_perplexity,
    "get_perplexity": check_scorer,
    "n_gram_entropy": check_fluency,
    "test_prediction_acc": check_prediction_accuracy,
    "finalize_locality_metrics": check_locality,
}

# Functions that no suite asks for: pattern -> what they are.
OTHERS = {
    r"eval_step_custom": "the training loss of another code base",
    r"normalize=False": "a measure that its own command line cannot reach",
    r"evaluation_edited": "a rule on the logits of a T5; `prefers_new_released` is ours",
    r"compute_perplexity_gpt|get_log_probs": "likelihoods from logits, which our scoring computes",
    r"lognormalize|compute_top1_accuracy": "a summary of choices; `choice` is ours",
    r"test_ensemble": "an ensemble of classifiers",
    r"generate_dyck|\w+Dataset\(|\btask_\w+": "a generator of procedural data",
    r"compute_metrics": "the accuracy of a procedural task",
    r"get_lr_scheduler": "a learning-rate schedule",
    r"load_pretrained_weights": "a transfer of weights",
    r"anneal_function|RecAdam|configure_optimizers": "the RecAdam optimizer",
    r"mix_len": "the size of MixReview's mixture",
    r"LoRALayer": "the scale of an adapter",
    r"distill": "a distillation loss",
    r"jsd_timeseries|usage_distribution": "LMLM's score of semantic change",
    r"kmeans": "LMLM's clustering",
    r"get_difference": "TemporalWiki's difference of two articles",
    r"probeless|get_neuron_ordering|l[12]_penalty|get_top_neurons": "a probing classifier",
    r"theta": "F-Learning's arithmetic of weights",
    r"cellular automaton": "a cellular automaton",
}


def check_of(vector):
    if "normalize=False" in vector["function"].replace(" ", ""):
        return None
    for name in sorted(CHECKS, key=len, reverse=True):
        if re.search(rf"(?<![A-Za-z]){re.escape(name)}(?![A-Za-z])", vector["function"]):
            return CHECKS[name]
    return None


def is_other(vector):
    return next(
        (what for find, what in OTHERS.items() if re.search(find, vector["function"])), None
    )
