"""Old text among the new: rows of reference text, or of the model's own, in the training data.

Comes in: rows of the update documents, and texts whose behaviour is to be kept. Goes out: rows of
both, in the order in which they train. It changes no loss.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradloc.data.batches import training_rows
from gradloc.errors import MethodError
from gradloc.training.methods.anchor_texts import Source, check_texts, fact_texts, written_texts
from gradloc.training.methods.base import Method, Rows, TrainContext


@dataclass(frozen=True)
class Replay(Method):
    """Replay: a share of the rows that are trained on is old text.

    With ``extra``, training is longer by 1 / (1 - ratio), so that the new rows are visited as
    often as without replay; without it, training costs the same and new rows are visited less
    often. That concerns training by ``max_steps``: training by epochs is always longer, since an
    epoch has more rows.

    Args:
        ratio: Replayed rows / all rows, 0 to below 1. 0.5: as many old rows as new ones.
        source: ``reference``: the context's reference texts; ``facts``: passages on people and
            places that ship with gradloc; ``generated``: texts sampled from the model before it
            trains; ``continued``: what it makes of a few words of the new documents. The last
            three need no old data.
        n_texts: Texts sampled at most. More rows than texts repeat them.
        packing: Fill the replayed rows with several texts, as ``corpus.packing`` does the others.
        extra: Lengthen a training by ``max_steps`` so that the visits of new rows stay.

    References: Ibrahim et al. 2024, arXiv:2403.08763, section 6.2 (share of replayed data in
        continual pretraining); self-generated replay after Sun et al. 2020, arXiv:1909.03329, and
        Huang et al. 2024, arXiv:2403.01244, who prompt for and refine whole examples, where this
        samples plain text.
    """

    ratio: float = 0.5
    source: Source = "reference"
    n_texts: int = 256
    packing: bool = False
    extra: bool = True

    def check(self) -> None:
        """Refuse options that cannot work.

        Raises:
            MethodError: A ratio outside [0, 1), an unknown source, or no texts.
        """
        if not 0 <= self.ratio < 1:
            raise MethodError(
                f"replay: ratio is {self.ratio}; it is the share of replayed rows in training, "
                "from 0 to below 1."
            )
        check_texts("replay", self.source, self.n_texts)

    def training_arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """``max_steps`` / (1 - ratio), rounded up, where ``extra`` is set."""
        max_steps = given.get("max_steps", -1)
        if not self.extra or max_steps <= 0:
            return given
        # 60 / (1 - 0.8) is a little above 300 in floating point.
        return {**given, "max_steps": math.ceil(max_steps / (1 - self.ratio) - 1e-9)}

    def rows(self, rows: Rows, context: TrainContext) -> Rows:
        """The new rows with ratio / (1 - ratio) as many old ones between them.

        Raises:
            MethodError: There is no text to replay, or the rows have columns that replayed rows
                cannot have.
        """
        n_old = round(len(rows) * self.ratio / (1 - self.ratio))
        if n_old == 0:
            return rows
        pool = old_rows(self.source, context, rows, min(self.n_texts, n_old), self.packing)
        generator = np.random.default_rng([context.arguments.seed, 0])
        mixed = [*rows, *draw_rows(pool, n_old, generator)]
        return [mixed[place] for place in generator.permutation(len(mixed))]


def old_rows(source: str, context: TrainContext, like: Rows, n_texts: int, packing: bool) -> Rows:
    """Rows of the text to keep, with the columns that the new rows have.

    Args:
        source: One of ``SOURCES``.
        context: The training; texts are sampled from its model as it is now.
        like: The new rows.
        n_texts: How many texts to sample.
        packing: Fill rows with several texts.

    Raises:
        MethodError: There is no text, or the new rows have columns beside ids, mask and labels.
    """
    columns = set(like[0]) if like else set()
    if strange := columns - {"input_ids", "attention_mask", "labels"}:
        raise MethodError(
            f"replay: the rows already have columns that old rows lack ({', '.join(strange)}). "
            "Put replay before the method that adds them."
        )
    if source == "reference":
        texts = context.reference
    elif source == "facts":
        texts = fact_texts(n_texts, context.arguments.seed)
    else:
        texts = written_texts(context, source, n_texts)
    pool = list(
        training_rows(
            context.tokenizer,
            texts,
            max_length=context.max_length,
            packing=packing,
            # A sampled text stops where its length is reached, not where it ends; but packed
            # texts must be told apart.
            append_eos=packing or source in ("reference", "facts"),
        )
    )
    if not pool:
        raise MethodError(
            f"replay: the source {source!r} gives no text of two tokens or more. Give reference "
            "texts (measure.reference), or take source: generated."
        )
    if "attention_mask" in columns:
        for row in pool:
            row["attention_mask"] = [1] * len(row["input_ids"])
    return pool


def draw_rows(rows: Rows, n: int, generator: np.random.Generator) -> Rows:
    """So many rows in random order; none comes again before all have come."""
    places: list[int] = []
    while len(places) < n:
        places += generator.permutation(len(rows)).tolist()
    return [rows[place] for place in places[:n]]
