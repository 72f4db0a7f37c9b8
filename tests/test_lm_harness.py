"""lm-evaluation-harness in both directions: the same numbers by two implementations."""

import json
import logging
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import GROUPED
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from gradloc.data.probes import Probe, ProbeSet
from gradloc.errors import GradlocError
from gradloc.evaluation.lm_eval import TaskScores, harness_request, harness_tasks, run_tasks
from gradloc.evaluation.scoring import score_probes
from gradloc.models import load_model, load_tokenizer
from gradloc.utils.io import write_json
from gradloc.utils.records import parse

pytest.importorskip("lm_eval")

TASKS = Path(__file__).parents[1] / "evaluation" / "lm_eval_tasks"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def bpe_checkpoint(tmp_path_factory):
    """Folder of a tiny Llama with a byte-level tokenizer whose tokens begin with a blank."""
    text = "The capital of Norway is Oslo. The film (1994) was made in the city of Bergen. " * 9
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        # Digits by themselves, as in SmolLM2: the blank before a number is a token of its own.
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([text], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.add_special_tokens({"eos_token": "<end>"})
    folder = tmp_path_factory.mktemp("bpe")
    torch.manual_seed(1)
    sizes = GROUPED | {"vocab_size": len(tokenizer), "max_position_embeddings": 128}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4.0)  # else all answers are about equally likely
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=["characters", "bpe"])
def checkpoint(request, tiny_checkpoint, bpe_checkpoint):
    return {"characters": tiny_checkpoint, "bpe": bpe_checkpoint}[request.param]


def written_by(folder):
    """A prompt that takes no blank and what the model writes behind it: an answer that is exact."""
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    for word in ("The film", "The city", "The capital", "It", "In", "made", "was", "of Oslo"):
        prompt = f"{word} ("
        ids = tokenizer(prompt)["input_ids"]
        for _ in range(2):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        answer = tokenizer.decode(ids)[len(prompt) :]
        request = harness_request(Probe("", "new", prompt, (answer,)), answer)
        if tokenizer(prompt + answer)["input_ids"] == ids and request == (prompt, answer):
            return prompt, answer
    raise AssertionError("the model writes nothing that is read as it was written")


@pytest.fixture
def probes(checkpoint):
    """Probes of all forms: brackets, numbers, suffixes, several answers, no prompt."""
    prompt, easy = written_by(checkpoint)
    return ProbeSet(
        [
            Probe("a", "updated", "The capital is", ("Oslo",), old_targets=("Bergen", "Moss")),
            Probe("b", "updated", "It was made in", ("1994",), old_targets=("June",), suffix="."),
            Probe("c", "updated", prompt, (easy,), old_targets=("1994",), suffix=")"),
            Probe("d", "new", prompt, ("abc", easy), suffix=") of Oslo"),
            Probe("e", "new", "The film (", ("1994", "June")),
            Probe("f", "invariant", "So it is ", ("Oslo",), suffix=" city"),
            Probe("g", "invariant", "Where? In", ("Oslo",), candidates=("Oslo", "12", "the city")),
            Probe("h", "invariant", "When? In", ("1994",), candidates=("Bergen", "1994", "94")),
            Probe("i", "invariant", "", ("It is so.",), candidates=("It is so.", "It so is.")),
            Probe("j", "invariant", "", ("is of Oslo",), candidates=("is of Oslo", "of Oslo")),
            # Long new answers and short old ones: by sums the old are always likelier.
            *(
                Probe(
                    f"long {old}", "updated", "Who", ("of the city of Norway",), old_targets=(old,)
                )
                for old in ("x", "It", "94", "(a)")
            ),
            Probe("k", "updated", "No one:", ("x",), old_targets=("y",), split="localization"),
        ]
    )


def expected(folder, probes):
    """gradloc's own numbers, of the probes that judge."""
    judging = [probe for probe in probes if probe.split != "localization"]
    columns = score_probes(load_model(folder), load_tokenizer(folder), judging, progress=False)
    found = {name: np.array(columns[name], float) for name in ("nll", "nll_sum", "exact")}
    pairs = [(n, o) for n, o in zip(columns["nll"], columns["old_nll"], strict=True) if o]
    found["prefers_new"] = np.array([float(new < old) for new, old in pairs])
    choices = list(
        zip(
            *(columns[f"candidate_{name}"] for name in ("nats", "lengths", "right")),
            strict=True,
        )
    )
    choices = [(np.array(n), np.array(k), r) for n, k, r in choices if n is not None]
    found["acc"] = np.array([right[nats.argmin()] for nats, _, right in choices], float)
    found["acc_norm"] = np.array([right[(nats / k).argmin()] for nats, k, right in choices], float)
    return found


def check(found, wanted):
    """Metric -> values of documents, against gradloc's."""
    for name, values in wanted.items():
        assert found[name] == pytest.approx(values, abs=TOLERANCE), name
    assert 0 < wanted["exact"].sum() < len(wanted["exact"]), "exact answers and others"


def test_the_harness_gives_gradlocs_numbers(checkpoint, probes, tmp_path, caplog):
    path = probes.save(tmp_path / "probes.jsonl")
    scores = run_tasks(
        load_model(checkpoint),
        load_tokenizer(checkpoint),
        ["gradloc"],
        include_path=TASKS,
        metadata={"probes": str(path), "tokenizer": str(checkpoint)},
        progress=False,
    )
    assert list(scores) == ["gradloc_facts", "gradloc_updates", "gradloc_choice"]
    assert [task.n for task in scores.values()] == [14, 7, 4]
    metrics = {name: m for task in scores.values() for name, m in task.metrics.items()}
    wanted = expected(checkpoint, probes)
    check({name: metric.values for name, metric in metrics.items()}, wanted)
    for name, values in wanted.items():
        assert metrics[name].value == pytest.approx(values.mean(), abs=TOLERANCE), name
    assert 0 < metrics["prefers_new"].value < 1
    assert metrics["prefers_new"].values != metrics["prefers_new_sum"].values, "per token counts"
    units = {name: (m.unit, m.higher_is_better) for name, m in metrics.items()}
    assert units["nll"] == ("nats", False)
    assert units["exact"] == units["prefers_new"] == units["acc_norm"] == ("fraction", True)
    assert "scores other tokens" not in caplog.text


@pytest.mark.slow
def test_the_harness_gives_gradlocs_numbers_on_the_command_line(bpe_checkpoint, tmp_path):
    prompt, easy = written_by(bpe_checkpoint)
    probes = ProbeSet(
        [
            Probe("a", "updated", "The capital is", ("Oslo",), old_targets=("Bergen",)),
            Probe("b", "updated", "It was made in", ("1994",), old_targets=("June",)),
            Probe("c", "new", prompt, (easy,)),
            Probe("d", "invariant", "In", ("Oslo",), candidates=("Oslo", "12", "the city")),
        ]
    )
    path = probes.save(tmp_path / "probes.jsonl")
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu"]
    command += ["--model_args", f"pretrained={bpe_checkpoint},dtype=float32"]
    command += ["--include_path", str(TASKS), "--tasks", "gradloc", "--log_samples"]
    command += ["--metadata", json.dumps({"probes": str(path)}), "--output_path", str(tmp_path)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (results,) = tmp_path.rglob("results_*.json")
    wanted = expected(bpe_checkpoint, probes)
    reported = {}
    for task in json.loads(results.read_text())["results"].values():
        reported |= {key.split(",")[0]: value for key, value in task.items() if ",none" in key}
    for name, values in wanted.items():
        assert reported[name] == pytest.approx(values.mean(), abs=TOLERANCE), name
    (samples,) = tmp_path.rglob("samples_gradloc_facts_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    rows.sort(key=lambda row: row["doc_id"])
    assert [row["doc"]["id"] for row in rows] == list("abcd")
    check({name: [row[name] for row in rows] for name in ("nll", "exact")}, {
        name: wanted[name] for name in ("nll", "exact")
    })  # fmt: skip


def gradloc_task(task, checkpoint, metadata):
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    options = {"include_path": TASKS, "metadata": metadata, "progress": False}
    return run_tasks(model, tokenizer, [task], **options)[task]


def test_without_a_tokenizer_only_sums_are_reported(tiny_checkpoint, tmp_path, caplog):
    probes = [Probe("a", "updated", "It is", ("Oslo",), old_targets=("Bergen",))]
    path = ProbeSet(probes).save(tmp_path / "probes.jsonl")
    facts = gradloc_task("gradloc_facts", tiny_checkpoint, {"probes": str(path)})
    assert set(facts.metrics) == {"nll_sum", "exact"}
    updates = gradloc_task("gradloc_updates", tiny_checkpoint, {"probes": str(path)})
    assert set(updates.metrics) == {"prefers_new_sum"}
    assert "no tokenizer is named" in caplog.text


def test_a_task_without_probes_reports_nothing_and_says_so(tiny_checkpoint, tmp_path, caplog):
    path = ProbeSet([Probe("a", "new", "It is", ("Oslo",))]).save(tmp_path / "probes.jsonl")
    metadata = {"probes": str(path), "tokenizer": str(tiny_checkpoint)}
    assert gradloc_task("gradloc_choice", tiny_checkpoint, metadata).metrics == {}
    assert "no probe has candidates" in caplog.text


def test_metadata_chooses_among_the_probes(tiny_checkpoint, tmp_path):
    probes = [Probe(f"{g}{i}", g, f"It is {i}", ("Oslo",)) for g in ("new", "invariant") for i in
              range(3)]  # fmt: skip
    path = ProbeSet(probes).save(tmp_path / "probes.jsonl")
    metadata = {"probes": str(path), "group": "invariant", "tokenizer": str(tiny_checkpoint)}
    found = gradloc_task("gradloc_facts", tiny_checkpoint, metadata).metrics["nll"].values
    model, tokenizer = load_model(tiny_checkpoint), load_tokenizer(tiny_checkpoint)
    own = score_probes(model, tokenizer, probes[3:], progress=False)["nll"]
    assert found == pytest.approx(own, abs=TOLERANCE)


def test_probes_that_nobody_names(tiny_checkpoint, monkeypatch):
    monkeypatch.delenv("GRADLOC_PROBES", raising=False)
    with pytest.raises(GradlocError, match="gradloc_facts: no probe file is named. Give --meta"):
        gradloc_task("gradloc_facts", tiny_checkpoint, {})


def test_answers_that_the_harness_cuts_elsewhere_are_counted(tiny_checkpoint, tmp_path, caplog):
    # One token reaches from the answer into the suffix. The harness, which sees no suffix, has
    # another token there.
    vocabulary = {"It": 0, "is": 1, "red": 2, "red-dish": 3, "~": 4}
    backend = Tokenizer(models.WordLevel(vocabulary, "~"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path / "words")
    probes = [
        Probe("a", "new", "It is", ("red",)),
        Probe("b", "new", "It is", ("red",), suffix="-dish"),
    ]
    metadata = {"probes": str(tmp_path / "p.jsonl"), "tokenizer": str(tmp_path / "words")}
    ProbeSet(probes[:1]).save(metadata["probes"])
    gradloc_task("gradloc_facts", tiny_checkpoint, metadata)
    assert "scores other tokens" not in caplog.text
    ProbeSet(probes).save(metadata["probes"])
    gradloc_task("gradloc_facts", tiny_checkpoint, metadata)
    assert "of 1 of 2 answers the harness scores other tokens" in caplog.text


QUESTIONS = [
    ("Where is Oslo?", ["Norway", "in the sea", "no one knows"], 0),
    ("When was it made?", ["1994", "June", "2 days ago"], 2),
    ("Who made it?", ["a city", "Bergen", "the capital of Norway"], 1),
    ("What is it?", ["The film", "Oslo", "x"], 2),
    ("Is it?", ["no", "it is not so", "yes"], 1),
]


@pytest.fixture
def own_tasks(tmp_path):
    """A folder with tasks and data that a user might write."""
    rows = [{"question": q, "choices": c, "gold": g} for q, c, g in QUESTIONS]
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "tasks"
    folder.mkdir()
    common = f"""
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {tmp_path / "cache"}}}
test_split: test
doc_to_text: "{{{{question}}}}"
tag: own
metadata: {{version: 2.0}}
"""
    texts = {
        "choices": """
task: own_choices
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: gold
metric_list: [{metric: acc}, {metric: acc_norm}, {metric: brier_score}]
""",
        "words": """
task: own_words
output_type: loglikelihood
doc_to_target: " {{choices[gold]}}"
target_delimiter: ""
metric_list: [{metric: perplexity}, {metric: acc}]
""",
        "rolling": """
task: own_rolling
output_type: loglikelihood_rolling
doc_to_target: question
metric_list: [{metric: bits_per_byte}, {metric: word_perplexity}]
""",
        "written": """
task: own_written
output_type: generate_until
doc_to_target: "{{choices[gold]}}"
generation_kwargs: {max_gen_toks: 4, until: ["."]}
filter_list:
  - name: first-word
    filter: [{function: regex, regex_pattern: "(\\\\w+)"}, {function: take_first}]
  - {name: none, filter: [{function: take_first}]}
metric_list: [{metric: exact_match}]
""",
    }
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(common + text)
    (folder / "shots.yaml").write_text(
        common.replace("tag: own", "process_docs: !function helper.shuffled")
        + texts["choices"].replace("own_choices", "shots")
        + "num_fewshot: 2\nfewshot_split: test\n"
    )
    (folder / "helper.py").write_text(
        "import random\n"
        "def shuffled(data):\n"
        "    return data.select(random.sample(range(len(data)), len(data)))\n"
    )
    return folder


def log_likelihood(model, tokenizer, context, continuation):
    """Sum over the tokens of a continuation, by one forward pass."""
    first = tokenizer(context)["input_ids"]
    ids = tokenizer(context + continuation)["input_ids"]
    with torch.no_grad():
        log_probs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(log_probs[place - 1, ids[place]]) for place in range(len(first), len(ids)))


def test_tasks_of_ones_own_equal_a_loop_and_gradlocs_choice(checkpoint, own_tasks):
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    scores = run_tasks(model, tokenizer, ["own_choices"], include_path=own_tasks, progress=False)
    task = scores["own_choices"]
    sums = [[log_likelihood(model, tokenizer, q, f" {c}") for c in cs] for q, cs, _ in QUESTIONS]
    acc = [float(np.argmax(s) == gold) for s, (_, _, gold) in zip(sums, QUESTIONS, strict=True)]
    lengths = [[len(choice) for choice in choices] for _, choices, _ in QUESTIONS]
    norm = [
        float(np.argmax(np.array(s) / k) == gold)
        for s, k, (_, _, gold) in zip(sums, lengths, QUESTIONS, strict=True)
    ]
    assert list(task.metrics["acc"].values) == acc
    assert list(task.metrics["acc_norm"].values) == norm
    assert 0 < sum(acc) + sum(norm) < 10, "right answers and wrong ones"
    probes = [
        Probe(str(i), "invariant", q, (c[g],), candidates=tuple(c))
        for i, (q, c, g) in enumerate(QUESTIONS)
    ]
    nats = score_probes(model, tokenizer, probes, progress=False)["candidate_nats"]
    for own, theirs in zip(nats, sums, strict=True):
        assert own == pytest.approx([-value for value in theirs], abs=TOLERANCE)
    acc_metric = task.metrics["acc"]
    assert acc_metric.value == pytest.approx(np.mean(acc))
    assert acc_metric.stderr == pytest.approx(np.std(acc, ddof=1) / math.sqrt(len(acc)))
    assert (acc_metric.unit, acc_metric.higher_is_better) == ("fraction", True)
    assert (task.version, task.n, task.doc_ids) == ("2.0", 5, (0, 1, 2, 3, 4))


def test_examples_and_order_are_those_of_the_harness_itself(
    tiny_checkpoint, own_tasks, monkeypatch
):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    # Only describes the machine in the results, for some seconds.
    monkeypatch.setattr("torch.utils.collect_env.get_pretty_env_info", str)
    model, tokenizer = load_model(tiny_checkpoint), load_tokenizer(tiny_checkpoint)
    manager = TaskManager(include_path=str(own_tasks), include_defaults=False)
    lm = HFLM(model, tokenizer=tokenizer, batch_size=8)
    results = simple_evaluate(lm, tasks=["shots"], task_manager=manager)
    samples = results["samples"]["shots"]
    assert [s["doc"]["question"] for s in samples] != [q for q, _, _ in QUESTIONS], "shuffled"
    random.seed(99)  # what the caller did before must not matter
    found = run_tasks(model, tokenizer, ["shots"], include_path=own_tasks, progress=False)["shots"]
    assert found.metrics["brier_score"].value == results["results"]["shots"]["brier_score,none"]
    assert found.metrics["acc"].value == results["results"]["shots"]["acc,none"]
    assert list(found.metrics["acc"].values) == [s["acc"] for s in samples]


def test_every_kind_of_metric(tiny_checkpoint, own_tasks):
    model, tokenizer = load_model(tiny_checkpoint), load_tokenizer(tiny_checkpoint)
    options = {"include_path": own_tasks, "progress": False}
    scores = run_tasks(model, tokenizer, ["own"], **options)
    assert sorted(scores) == ["own_choices", "own_rolling", "own_words", "own_written"]
    brier = scores["own_choices"].metrics["brier_score"]
    assert (brier.values, brier.aggregation, brier.unit) == (None, "other", ""), "of pairs"
    assert 0 < brier.value < 2 and brier.stderr is None, "the harness has no error of it"

    perplexity = scores["own_words"].metrics["perplexity"]
    sums = [log_likelihood(model, tokenizer, q, f" {c[g]}") for q, c, g in QUESTIONS]
    assert perplexity.values == pytest.approx([-value for value in sums], abs=TOLERANCE)
    assert perplexity.value == pytest.approx(math.exp(np.mean(perplexity.values)), rel=1e-6)
    assert (perplexity.aggregation, perplexity.unit) == ("exp_mean", "perplexity")
    assert not perplexity.higher_is_better and perplexity.stderr > 0

    bits = scores["own_rolling"].metrics["bits_per_byte"]
    assert (bits.values, bits.unit, bits.higher_is_better) == (None, "bits/byte", False)
    assert bits.value > 0

    assert set(scores["own_written"].metrics) == {"exact_match", "exact_match_first_word"}
    assert len(scores["own_written"].metrics["exact_match"].values) == 5

    limited = run_tasks(model, tokenizer, ["own_w*"], limit=2, **options)
    assert {name: task.n for name, task in limited.items()} == {"own_words": 2, "own_written": 2}


def test_scores_survive_their_file(tiny_checkpoint, own_tasks, tmp_path):
    model, tokenizer = load_model(tiny_checkpoint), load_tokenizer(tiny_checkpoint)
    options = {"include_path": own_tasks, "limit": 3, "progress": False}
    for name, scores in run_tasks(model, tokenizer, ["own"], **options).items():
        path = write_json(tmp_path / f"{name}.json", scores)
        assert parse(TaskScores, json.loads(path.read_text()), path) == scores
    with pytest.raises(GradlocError, match="task: is missing"):
        parse(TaskScores, {"metrics": {}}, "scores.json")


def test_model_and_random_states_are_left_as_found(tiny_checkpoint, own_tasks, monkeypatch):
    monkeypatch.delenv("DISABLE_MULTIPROC", raising=False)
    model, tokenizer = load_model(tiny_checkpoint), load_tokenizer(tiny_checkpoint)
    tokenizer.pad_token = None
    model.train()
    model.lm_head.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    wanted = random.random(), np.random.random(), torch.rand(1)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    run_tasks(model, tokenizer, ["own_words"], include_path=own_tasks, progress=False)
    assert (random.random(), np.random.random(), torch.rand(1)) == wanted
    assert model.training and not model.lm_head.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert tokenizer.pad_token is None
    assert "DISABLE_MULTIPROC" not in os.environ


@pytest.mark.parametrize("progress", [False, True])
def test_quiet_unless_asked(tiny_checkpoint, own_tasks, capfd, progress):
    model, tokenizer = load_model(tiny_checkpoint), load_tokenizer(tiny_checkpoint)
    logger = logging.getLogger("lm_eval")
    level = logger.level
    capfd.readouterr()
    options = {"include_path": own_tasks, "progress": progress}
    run_tasks(model, tokenizer, ["own_words"], **options)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("Running loglikelihood requests" in err) == progress
    assert progress or err == ""
    assert logger.level == level


def test_without_the_package(tiny_checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(GradlocError, match="pip install 'lm-eval>="):
        run_tasks(None, None, ["hellaswag"])


def own_task(folder, **changes):
    """A task file whose data are somewhere else."""
    lines = {"task": "mine", "dataset_path": "nobody/nothing", "output_type": "multiple_choice"}
    lines |= {"test_split": "test", "doc_to_text": "a", "doc_to_choice": "b", "doc_to_target": "c"}
    lines |= changes
    folder.mkdir()
    (folder / "mine.yaml").write_text("".join(f"{k}: {v}\n" for k, v in lines.items()))
    return folder


def test_data_that_cannot_be_had(llama, character_tokenizer, tmp_path, monkeypatch):
    # What the environment variables HF_HUB_OFFLINE and HF_DATASETS_OFFLINE set at import.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    folder = own_task(tmp_path / "tasks")
    with pytest.raises(GradlocError, match="task 'mine' .* data cannot be had .*nobody/nothing"):
        run_tasks(llama, character_tokenizer, ["mine"], include_path=folder, progress=False)


def test_a_task_that_runs_written_code_is_refused(llama, character_tokenizer, own_tasks, tmp_path):
    text = (own_tasks / "choices.yaml").read_text()
    (own_tasks / "choices.yaml").write_text(text + "unsafe_code: true\n")
    options = {"include_path": own_tasks, "progress": False}
    with pytest.raises(GradlocError, match="'own_choices' runs code that the model writes"):
        run_tasks(llama, character_tokenizer, ["own_choices"], **options)


def test_a_folder_of_tasks_that_is_not_there(llama, character_tokenizer):
    with pytest.raises(GradlocError, match="there is no folder 'nowhere'"):
        run_tasks(llama, character_tokenizer, ["x"], include_path="nowhere", progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cure"),
    [("hellaswga", "Did you mean 'hellaswag'"), ("%%%", "List what there is with: lm_eval ls")],
)
def test_an_unknown_task(llama, character_tokenizer, name, cure):
    with pytest.raises(GradlocError, match=f"has no task '{name}'. {cure}"):
        run_tasks(llama, character_tokenizer, [name], progress=False)
    harness_tasks._shipped_tasks()  # one index for all calls
    assert harness_tasks._shipped_tasks.cache_info().currsize == 1
