"""Context distillation: the model alone learns to predict as it does with the document in sight.

Comes in: a base model and token rows of the update documents. Goes out: rows of sentences that
the model wrote about them, and a loss that compares it with its former self that sees the
document. No copy of the base model is kept while training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import GenerationConfig

from gradloc.data.batches import collate, pad_token_id
from gradloc.errors import MethodError
from gradloc.evaluation.scoring.tokens import context_length
from gradloc.models.wrappers import evaluation_mode
from gradloc.training.methods.base import Loss, Method, Rows, TrainContext
from gradloc.training.methods.base_targets import BaseTargets
from gradloc.training.methods.stored import digest_of, load_or_compute
from gradloc.training.methods.teacher_targets import distillation_loss, teacher_targets

TARGETS_FILE = "context_distillation.safetensors"
# Documents that are continued at a time. assumption: memory for 8 x n_sentences short texts.
_DOCUMENTS = 8


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

    n_sentences: int = 4
    n_tokens: int = 32
    temperature: float = 2.0
    sampling_temperature: float = 1.0
    prompt: str = ""
    top_k: int = 64

    def check(self) -> None:
        """Refuse options that cannot work.

        Raises:
            MethodError: A count or temperature is out of range.
        """
        least = {"n_sentences": 1, "n_tokens": 2, "top_k": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise MethodError(
                    f"context_distillation: {name} is {getattr(self, name)}; it must be {bound} "
                    "or more."
                )
        for name in ("temperature", "sampling_temperature"):
            if getattr(self, name) <= 0:
                raise MethodError(
                    f"context_distillation: {name} is {getattr(self, name)}; it must be above 0."
                )

    def rows(self, rows: Rows, context: TrainContext) -> Rows:
        """The sentences, in place of the documents; what the teacher predicts is kept on disk."""
        prompt = context.tokenizer(self.prompt, add_special_tokens=False)["input_ids"]
        documents = _documents(rows, context, len(prompt) + self.n_tokens)
        request = {"options": vars(self), "seed": context.arguments.seed, "documents": documents}

        def compute() -> dict[str, Tensor]:
            model = context.model.to(context.arguments.device)
            sentences = self._write(model, documents, prompt, context)
            targets = teacher_targets(
                model,
                documents,
                sentences,
                start=_start_tokens(context.tokenizer),
                temperature=self.temperature,
                top_k=self.top_k,
            )
            return targets.to_tensors()

        path = _targets_path(context)
        tensors = load_or_compute(path, digest_of(context.model, request), compute)
        found = BaseTargets.from_tensors(tensors).rows
        return [{"input_ids": list(row), "labels": list(row)} for row in found]

    def loss(self, context: TrainContext) -> Loss:
        """Mean over the positions of a batch, in nats (times T^2).

        Raises:
            MethodError: ``rows`` has not been called for this training.
        """
        path = _targets_path(context)
        if not path.is_file():
            raise MethodError(f"context_distillation: {path} is missing; call rows() first.")
        targets = BaseTargets.from_tensors(load_file(path))
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
            total = sum(
                distillation_loss(logits[row][mask[row]][:-1], wanted[row], self.temperature)
                for row in range(len(rows))
            )
            return total / sum(len(row) - 1 for row in rows)

        return loss

    def _write(
        self,
        model: nn.Module,
        documents: Sequence[list[int]],
        prompt: list[int],
        context: TrainContext,
    ) -> list[list[list[int]]]:
        """Sentences of each document, as token ids."""
        tokenizer = context.tokenizer
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
            suppress_tokens=list(tokenizer.all_special_ids) or None,
            pad_token_id=pad_token_id(tokenizer),
        )
        written: list[list[list[int]]] = []
        with evaluation_mode(model), torch.no_grad():
            torch.manual_seed(context.arguments.seed)
            for first in range(0, len(documents), _DOCUMENTS):
                given = [
                    {"input_ids": [*document, *prompt], "labels": [*document, *prompt]}
                    for document in documents[first : first + _DOCUMENTS]
                ]
                batch = collate(given, pad_token_id(tokenizer), padding_side="left")
                device = next(model.parameters()).device
                ids = model.generate(
                    input_ids=batch["input_ids"].to(device),
                    attention_mask=batch["attention_mask"].to(device),
                    generation_config=config,
                )
                new = ids[:, batch["input_ids"].shape[1] :]
                written += new.reshape(len(given), self.n_sentences, -1).tolist()
        return written


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


def _targets_path(context: TrainContext) -> Path:
    return Path(context.work_dir) / TARGETS_FILE
