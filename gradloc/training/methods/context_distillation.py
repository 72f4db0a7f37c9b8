"""Context distillation: the model alone learns to predict as it does with the document in sight."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import GenerationConfig

from gradloc.data.batches import collate, pad_token_id
from gradloc.errors import MethodError
from gradloc.evaluation.scoring.tokens import context_length
from gradloc.models.logits import forward_at
from gradloc.models.wrappers import evaluation_mode
from gradloc.training.methods.base import (
    Count,
    CountOrZero,
    Loss,
    Method,
    Positive,
    Rows,
    TrainContext,
)
from gradloc.training.methods.base_targets import BaseTargets, largest
from gradloc.training.methods.coarse_kl import coarse_kl

# Documents that are continued at a time. assumption: memory for 8 x n_sentences short texts.
_DOCUMENTS = 8
_TARGETS = "context_distillation"


@dataclass(frozen=True)
class ContextDistillation(Method):
    """T^2 KL(teacher || student) on sentences that the teacher wrote about each document.

    The teacher is the base model with the document before the sentence, the student sees the
    sentence alone. Sentences are continuations of the document (and ``prompt``), sampled from the
    base; the prompt is left out of what the teacher then sees. Each row of the update documents
    counts as a document, without its end token; with ``corpus.packing`` rows hold pieces of
    several, which this method has no use for.

    The teacher's ``top_k`` largest probabilities are recorded once, before training. The loss is
    the KL divergence with all other tokens merged into one: never more than the true one, and
    equal to it at ``top_k`` 0. The new text itself is not trained on.

    Args:
        n_sentences: Sentences for each document.
        n_tokens: Tokens of each sentence, >= 2.
        temperature: T, which divides the logits of both sides, > 0.
        sampling_temperature: Divides the logits when sentences are sampled, > 0.
        prompt: Text between the document and the sentence, when the sentence is sampled.
        top_k: Probabilities kept at each position; 0: all of them.

    References: Padmanabhan et al. 2023, arXiv:2306.09306, section 3. Its released code takes T 2,
        up to 5 sentences, the KL divergence summed over the vocabulary and averaged over
        positions; sentences came from a language model that was prompted with the definition.
    """

    n_sentences: Count = 4
    n_tokens: Annotated[int, Field(ge=2)] = 32
    temperature: Positive = 2.0
    sampling_temperature: Positive = 1.0
    prompt: str = ""
    top_k: CountOrZero = 64

    def rows(self, rows: Rows, context: TrainContext) -> Rows:
        """The sentences, in place of the documents; the teacher's predictions are recorded."""
        tokenizer = context.tokenizer
        prompt = tokenizer(self.prompt, add_special_tokens=False)["input_ids"]
        documents = _documents(rows, context, len(prompt) + self.n_tokens)
        model = context.model.to(context.arguments.device)
        targets = teacher_targets(
            model,
            documents,
            self._write(model, documents, prompt, context),
            start=_start_tokens(tokenizer),
            temperature=self.temperature,
            top_k=self.top_k,
        )
        context.prepared[_TARGETS] = targets
        return [{"input_ids": list(row), "labels": list(row)} for row in targets.rows]

    def loss(self, context: TrainContext) -> Loss:
        """Mean over the positions of a batch, in nats (times T^2).

        Raises:
            MethodError: ``rows`` has not been called for this training.
        """
        targets: BaseTargets | None = context.prepared.get(_TARGETS)
        if targets is None:
            raise MethodError("context_distillation: no teacher has been recorded; call rows().")
        places = {row: place for place, row in enumerate(targets.rows)}

        def loss(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
            ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
            rows = [tuple(ids[row][mask[row]].tolist()) for row in range(len(ids))]
            if unknown := [row for row in rows if row not in places]:
                raise MethodError(
                    f"context_distillation: {len(unknown)} of {len(rows)} rows of a batch are "
                    "none of its sentences, so no teacher has seen them. It cannot be combined "
                    "with a method that adds or changes rows."
                )
            wanted = targets.of_rows([places[row] for row in rows])
            logits = model(
                input_ids=ids, attention_mask=inputs["attention_mask"], use_cache=False
            ).logits
            total = torch.zeros((), device=ids.device)
            for logit, real, target in zip(logits, mask, wanted, strict=True):
                total = total + distillation_loss(logit[real][:-1], target, self.temperature)
            return total / sum(len(row) - 1 for row in rows)

        return loss

    def _write(
        self,
        model: Any,
        documents: Sequence[list[int]],
        prompt: list[int],
        context: TrainContext,
    ) -> list[list[list[int]]]:
        """Sentences of each document, as token ids."""
        pad_id = pad_token_id(context.tokenizer)
        config = GenerationConfig(
            do_sample=True,
            temperature=self.sampling_temperature,
            # The whole distribution, whatever the model's own defaults cut off.
            top_k=0,
            top_p=1.0,
            repetition_penalty=1.0,
            num_return_sequences=self.n_sentences,
            max_new_tokens=self.n_tokens,
            # The document's end is no reason to write nothing about it. What ends a text may be
            # named by the tokenizer, by the model's own generation settings, or by both.
            min_new_tokens=self.n_tokens,
            suppress_tokens=list(context.tokenizer.all_special_ids) or None,
            pad_token_id=pad_id,
        )
        written: list[list[list[int]]] = []
        with evaluation_mode(model), torch.no_grad():
            torch.manual_seed(context.arguments.seed)
            for first in range(0, len(documents), _DOCUMENTS):
                given = [[*ids, *prompt] for ids in documents[first : first + _DOCUMENTS]]
                rows = [{"input_ids": ids, "labels": ids} for ids in given]
                batch = collate(rows, pad_id, padding_side="left")
                device = next(model.parameters()).device
                ids = model.generate(
                    input_ids=batch["input_ids"].to(device),
                    attention_mask=batch["attention_mask"].to(device),
                    generation_config=config,
                )
                new = ids[:, batch["input_ids"].shape[1] :]
                written += new.reshape(len(given), self.n_sentences, -1).tolist()
        return written


def distillation_loss(
    logits: Tensor, target: tuple[Tensor, Tensor, Tensor], temperature: float
) -> Tensor:
    """Sum over positions of T^2 KL(teacher || student), in nats.

    Args:
        logits: The student's, (n_positions, vocab), not divided by T.
        target: The teacher's ``token_ids`` (n_positions, k), ``log_probs`` (n_positions, k) and
            ``log_rest`` (n_positions,), of logits divided by T.
        temperature: T. The factor T^2 keeps gradients of the same size for any T.

    References: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    return temperature**2 * coarse_kl(logits[None] / temperature, [target])


def teacher_targets(
    model: nn.Module,
    documents: Sequence[Sequence[int]],
    sentences: Sequence[Sequence[Sequence[int]]],
    *,
    start: Sequence[int] = (),
    temperature: float = 1.0,
    top_k: int = 0,
) -> BaseTargets:
    """What a model predicts along sentences that stand after their documents.

    Args:
        model: The teacher; left as found.
        documents: Token ids of each.
        sentences: For each document, its sentences: token ids, two or more, all of one length.
        start: Token that begins each row that the student sees (BOS), or nothing. With it, the
            first token of a sentence is predicted as well.
        temperature: Divides the logits.
        top_k: Probabilities kept at each position; 0: all.

    Returns:
        Targets whose rows are start + sentence. A sentence that was written about two documents
        counts for the first.
    """
    device = next(model.parameters()).device
    found: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {}
    with evaluation_mode(model), torch.no_grad():
        for document, written in zip(documents, sentences, strict=True):
            rows = [(*start, *sentence) for sentence in written]
            # A document's inputs are of one length, so nothing is padded.
            ids = torch.tensor([[*document, *sentence] for sentence in written], device=device)
            end = ids.shape[1] - 1
            positions = torch.arange(end - len(rows[0]) + 1, end, device=device)
            logits = forward_at(model, ids, positions, use_cache=False)[0].float() / temperature
            for row, of_row in zip(rows, logits, strict=True):
                found.setdefault(row, largest(of_row, top_k))
    return BaseTargets.joined(list(found), list(found.values()))


def _documents(rows: Rows, context: TrainContext, n_added: int) -> list[list[int]]:
    """Token ids of each row without its end token, cut so that ``n_added`` tokens still fit."""
    eos, limit = context.tokenizer.eos_token_id, context_length(context.model)
    room = max(1, limit - n_added) if limit else None
    documents = []
    for row in rows:
        ids = list(row["input_ids"])
        ids = ids[:-1] if ids[-1] == eos and len(ids) > 1 else ids
        documents.append(ids[:room])
    return documents


def _start_tokens(tokenizer) -> list[int]:
    """The token that this tokenizer puts before every text, if it does."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("")["input_ids"][:1] == [bos] else []
