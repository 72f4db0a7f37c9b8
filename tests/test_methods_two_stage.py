import random

import pytest
import torch
from conftest import build_model, plan_for
from reference_checks import PATH, read_vectors
from transformers import Trainer, TrainingArguments

from gradloc import GradLocCallback
from gradloc.data.batches import collate, training_rows
from gradloc.data.probes import Probe
from gradloc.errors import MethodError, SelectionError
from gradloc.models.units import find_units
from gradloc.training.methods.base import TrainContext
from gradloc.training.methods.context_distillation import (
    ContextDistillation,
    distillation_loss,
    teacher_targets,
)
from gradloc.training.methods.forget_then_learn import (
    ForgetThenLearn,
    old_sentences,
    subtract_change,
)
from gradloc.training.methods.method_table import build_method

CHOSEN = ("layers.1.mlp", "layers.2.self_attn")
FACTS = (
    Probe("a", "updated", "Croatia pays in", ("euro",), old_targets=("kuna", "dinar"), suffix="."),
    Probe("b", "new", "The mayor is", ("Ilse",)),
    Probe("c", "updated", "The king is", ("Carl",), old_targets=("Olav",)),
)


def context_for(folder, tokenizer, kind="llama", chosen=CHOSEN, scale=1.0, **changes):
    defaults = dict(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        max_steps=4,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    model = build_model(kind)
    return TrainContext(
        model,
        tokenizer,
        plan_for(model, chosen, scale),
        TrainingArguments(**defaults | changes),
        facts=FACTS,
        max_length=32,
    )


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def vector(name):
    found = [v for v in read_vectors(PATH) if v["id"] == name]
    if not found:
        pytest.skip(f"no vectors at {PATH}")
    return found[0]["input"], found[0]["output"]


# --- F-Learning ------------------------------------------------------------------------------


def test_the_subtraction_is_the_papers():
    given, expected = vector("flearning.arith")
    start, tuned = torch.tensor(given["theta"]), torch.tensor(given["theta_old_ft"])
    torch.testing.assert_close(subtract_change(start, tuned, given["lam"]), torch.tensor(expected))


def test_a_small_change_survives_bfloat16():
    start, tuned = torch.tensor([1.0]).bfloat16(), torch.tensor([1.0078125]).bfloat16()
    found = subtract_change(start, tuned, 2.0)
    assert found.dtype == torch.bfloat16
    assert found.item() == 1 - 2 * 0.0078125


def test_old_sentences_are_prompt_first_old_answer_and_suffix():
    assert old_sentences(FACTS) == ["Croatia pays in kuna.", "The king is Olav"]
    with pytest.raises(MethodError, match="none of the 1 localisation probes has old answers"):
        old_sentences(FACTS[1:2])


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_preparing_steps_away_from_what_learning_the_old_answers_does(
    tmp_path, character_tokenizer, scale
):
    context = context_for(tmp_path, character_tokenizer, scale=scale)
    start = weights_of(context.model)
    ForgetThenLearn(rate=0.3, old_steps=3, batch_size=2).prepare(context)
    # The same by hand: three AdamW steps over the two sentences.
    model = build_model("llama").train()
    trained = {
        name: parameter
        for unit in find_units(model)
        if context.plan.scale[unit.name]
        for name, parameter in unit.parameters.items()
    }
    rows = list(
        training_rows(
            character_tokenizer,
            ["Croatia pays in kuna.", "The king is Olav"],
            max_length=32,
            packing=False,
        )
    )
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2 * scale, weight_decay=0.0)
    order = random.Random(0)
    for _ in range(3):
        batch = collate(order.sample(rows, 2), 96)
        gradients = torch.autograd.grad(model(**batch).loss, list(trained.values()))
        for parameter, gradient in zip(trained.values(), gradients, strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
    for name, parameter in context.model.named_parameters():
        assert parameter.requires_grad and parameter.grad is None
        if name in trained:
            expected = start[name] - 0.3 * (trained[name].detach() - start[name])
            torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-5)
            assert not torch.equal(parameter, start[name])
        else:
            assert torch.equal(parameter, start[name])
    assert not context.model.training


def test_the_old_answers_become_less_likely(tmp_path, character_tokenizer):
    context = context_for(tmp_path, character_tokenizer)
    rows = training_rows(character_tokenizer, old_sentences(FACTS), max_length=32, packing=False)
    batch = collate(list(rows), 96)
    with torch.no_grad():
        before = context.model(**batch).loss
    ForgetThenLearn(old_steps=5, learning_rate=1e-3).prepare(context)
    with torch.no_grad():
        assert context.model(**batch).loss > before


def test_training_goes_on_from_there_inside_the_plan(tmp_path, character_tokenizer):
    context = context_for(tmp_path, character_tokenizer)
    state = torch.get_rng_state()
    ForgetThenLearn(old_steps=2).prepare(context)
    assert torch.equal(torch.get_rng_state(), state)
    rows = training_rows(character_tokenizer, ["New text."] * 8, max_length=32, packing=False)
    callback = GradLocCallback(context.plan)
    Trainer(
        context.model.train(),
        args=context.arguments,
        train_dataset=list(rows),
        data_collator=lambda batch: collate(batch, 96),
        callbacks=[callback],
    ).train()
    assert callback.n_verified > 0


def test_forgetting_without_old_answers_or_without_a_unit_is_refused(tmp_path, character_tokenizer):
    context = context_for(tmp_path, character_tokenizer)
    context.facts = FACTS[1:2]
    with pytest.raises(MethodError, match="without f_learning"):
        ForgetThenLearn().prepare(context)
    with pytest.raises(SelectionError, match="freezes everything"):
        ForgetThenLearn().prepare(context_for(tmp_path, character_tokenizer, chosen=("none",)))


@pytest.mark.parametrize("option", ["rate", "old_steps", "learning_rate", "batch_size"])
def test_options_of_f_learning_must_be_above_zero(option):
    with pytest.raises(MethodError, match=f"{option} must be greater than"):
        build_method("f_learning", {option: 0})


# --- Context distillation --------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_loss_is_that_of_the_published_code(temperature):
    given, expected = vector("kd.loss")
    teacher = (torch.tensor(given["teacher"]) / temperature).log_softmax(-1)
    whole = (torch.arange(3).expand(2, 3), teacher, torch.full((2,), -torch.inf))
    student = torch.tensor(given["student"], requires_grad=True)
    found = distillation_loss(student, whole, temperature) / 2
    assert found.item() == pytest.approx(expected[f"T={temperature:.0f}"], rel=1e-5)
    (gradient,) = torch.autograd.grad(found, student)
    logits = torch.tensor(given["student"], requires_grad=True)
    plain = torch.nn.functional.kl_div(
        (logits / temperature).log_softmax(-1), teacher, reduction="batchmean", log_target=True
    )
    torch.testing.assert_close(
        gradient, torch.autograd.grad(temperature**2 * plain, logits)[0], rtol=1e-5, atol=1e-6
    )


def documents_of(tokenizer):
    texts = ["Arvenholm has a new mayor, Ilse Brandt.", "Croatia pays in euro."]
    return list(training_rows(tokenizer, texts, max_length=64, packing=False))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("start", [[], [95]])
def test_the_teacher_sees_the_document_and_the_positions_match(kind, start):
    model = build_model(kind)
    documents = [[1, 2, 3, 4, 5], [6, 7]]
    sentences = [[[8, 9, 10], [11, 12, 13]], [[14, 15, 16], [8, 9, 10]]]
    found = teacher_targets(model, documents, sentences, start=start, temperature=2.0)
    # The last sentence was written of both documents and counts for the first.
    assert found.rows == tuple((*start, *s) for s in ([8, 9, 10], [11, 12, 13], [14, 15, 16]))
    pairs = [(documents[0], sentences[0][0]), (documents[0], sentences[0][1])]
    pairs.append((documents[1], sentences[1][0]))
    for (document, sentence), (ids, log_probs, log_rest) in zip(
        pairs, found.of_rows([0, 1, 2]), strict=True
    ):
        with torch.no_grad():
            logits = model(torch.tensor([[*document, *sentence]])).logits[0]
        # What stands before each predicted token: with a start token, all three are predicted.
        predicted = range(1 - len(start), 3)
        expected = torch.stack([logits[len(document) + i - 1] for i in predicted])
        torch.testing.assert_close(log_probs, (expected / 2).log_softmax(-1), rtol=1e-4, atol=1e-4)
        assert ids.tolist() == [list(range(97))] * len(predicted)
        assert torch.isneginf(log_rest).all()


def test_with_few_probabilities_kept_the_loss_is_a_lower_bound(tmp_path):
    model, other = build_model("llama"), build_model("llama", seed=1)
    row, losses = [8, 9, 10, 11], []
    with torch.no_grad():
        logits = other(torch.tensor([row])).logits[0, :-1]
    for top_k in (1, 4, 32, 96, 0):
        targets = teacher_targets(model, [[1, 2, 3]], [[row]], top_k=top_k, temperature=2.0)
        losses.append(distillation_loss(logits, targets.of_rows([0])[0], 2.0).item())
    assert all(a < b + 1e-5 for a, b in zip(losses, losses[1:], strict=False))
    assert losses[0] < 0.9 * losses[-1]
    assert losses[-2] == pytest.approx(losses[-1], rel=1e-4)


def test_rows_become_sentences_of_the_model_and_the_loss_compares_with_the_teacher(
    tmp_path, character_tokenizer
):
    context = context_for(tmp_path, character_tokenizer)
    method = ContextDistillation(n_sentences=3, n_tokens=6, top_k=0)
    before, state = weights_of(context.model), torch.get_rng_state()
    rows = method.rows(documents_of(character_tokenizer), context)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(rows) == 6
    special = set(character_tokenizer.all_special_ids)
    for row in rows:
        assert row["labels"] == row["input_ids"] and len(row["input_ids"]) == 6
        assert not special & set(row["input_ids"])
    loss = method.loss(context)
    document = documents_of(character_tokenizer)[0]["input_ids"][:-1]  # without the end token
    student = build_model("llama", seed=4)
    row = rows[1]["input_ids"]
    for side in ("right", "left"):
        batch = collate([rows[1], {"input_ids": row, "labels": row}], 96, side, 8)
        with torch.no_grad():
            found = loss(student, batch)
            teacher = context.model(torch.tensor([[*document, *row]])).logits[0, -6:-1]
            alone = student(torch.tensor([row])).logits[0, :-1]
            expected = 4 * torch.nn.functional.kl_div(
                (alone / 2).log_softmax(-1),
                (teacher / 2).log_softmax(-1),
                reduction="batchmean",
                log_target=True,
            )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(p, before[n]) for n, p in context.model.named_parameters())


def test_a_document_that_would_end_is_written_on_about(tmp_path, character_tokenizer):
    context = context_for(tmp_path, character_tokenizer)
    with torch.no_grad():
        context.model.lm_head.weight.zero_()  # every token, special ones too, is as likely
    method = ContextDistillation(n_sentences=4, n_tokens=40)
    rows = method.rows(documents_of(character_tokenizer), context)
    ids = [token for row in rows for token in row["input_ids"]]
    assert len(ids) == 2 * 4 * 40
    assert not set(character_tokenizer.all_special_ids) & set(ids)


def test_sentences_follow_from_document_prompt_and_seed(tmp_path, character_tokenizer):
    def rows(folder, documents=None, seed=0, **options):
        context = context_for(tmp_path / folder, character_tokenizer, seed=seed)
        method = ContextDistillation(n_sentences=2, n_tokens=6, **options)
        return method.rows(documents or documents_of(character_tokenizer), context)

    first = rows("a")
    assert rows("b") == first
    assert rows("c", seed=1) != first
    assert rows("d", prompt="In short:") != first
    # What is padded in front of a document in a batch does not matter to it. As good as greedy:
    greedy = {"sampling_temperature": 1e-5}
    apart = [
        rows(f"e{i}", [row], **greedy) for i, row in enumerate(documents_of(character_tokenizer))
    ]
    assert rows("f", **greedy) == [row for part in apart for row in part]


def test_training_by_the_trainer_brings_the_student_nearer_inside_the_plan(
    tmp_path, character_tokenizer
):
    context = context_for(tmp_path, character_tokenizer, max_steps=12)
    method = ContextDistillation(n_sentences=3, n_tokens=8)
    rows = method.rows(documents_of(character_tokenizer), context)
    loss = method.loss(context)

    class WithLoss(Trainer):
        model_accepts_loss_kwargs = False

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return loss(model, inputs)

    callback = GradLocCallback(context.plan)
    trainer = WithLoss(
        context.model.train(),
        args=context.arguments,
        train_dataset=rows,
        data_collator=lambda batch: collate(batch, 96),
        callbacks=[callback],
    )
    batch = collate(rows, 96)
    with torch.no_grad():
        before = loss(context.model, batch)
    trainer.train()
    with torch.no_grad():
        assert loss(context.model, batch) < 0.8 * before
    assert callback.n_verified > 0


def test_rows_that_no_teacher_has_seen_are_refused(tmp_path, character_tokenizer):
    context = context_for(tmp_path, character_tokenizer)
    method = ContextDistillation(n_sentences=1, n_tokens=6)
    with pytest.raises(MethodError, match="no teacher has been recorded"):
        method.loss(context)
    rows = method.rows(documents_of(character_tokenizer), context)
    foreign = {"input_ids": [1, 2, 3], "labels": [1, 2, 3]}
    with pytest.raises(MethodError, match="1 of 2 rows of a batch are none of its sentences"):
        method.loss(context)(context.model, collate([rows[0], foreign], 96))


def test_a_document_as_long_as_the_models_context_is_cut(tmp_path, character_tokenizer):
    # GPT-2 has a position embedding for each of 64 places, and no more.
    context = context_for(tmp_path, character_tokenizer, kind="gpt2", chosen=("h.1",))
    long = {"input_ids": [1] * 64, "labels": [1] * 64}
    method = ContextDistillation(n_sentences=1, n_tokens=6, prompt="So: ")
    assert len(method.rows([long], context)) == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("n_sentences", 0),
        ("n_tokens", 1),
        ("top_k", -1),
        ("temperature", 0),
        ("sampling_temperature", -1),
    ],
)
def test_options_of_context_distillation_in_range(option, value):
    with pytest.raises(MethodError, match=f"{option} must be greater than"):
        build_method("context_distillation", {option: value})
