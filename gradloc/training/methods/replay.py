"""Replay: rows of old text among those that are trained on."""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from gradloc.data.batches import training_rows
from gradloc.errors import MethodError
from gradloc.training.methods.anchor_texts import Source, anchor_texts
from gradloc.training.methods.base import Count, Method, Rows, TrainContext


@dataclass(frozen=True)
class Replay(Method):
    """Replay: a share of the rows that are trained on is old text.

    With ``extra``, a training by ``max_steps`` is longer by 1 / (1 - ratio), so that the new rows
    are visited as often as without replay; without it, training costs the same and new rows are
    visited less often. A training by epochs is always longer, since an epoch has more rows.

    Args:
        ratio: Replayed rows / all rows, 0 to below 1. 0.5: as many old rows as new ones.
        source: ``reference``: the context's reference texts; ``facts``: passages on people and
            places that ship with gradloc.
        n_texts: Shipped passages drawn at most. More rows than texts repeat them.
        packing: Fill the replayed rows with several texts, as ``corpus.packing`` does the others.
        extra: Lengthen a training by ``max_steps`` so that the visits of new rows stay.

    References: Ibrahim et al. 2024, arXiv:2403.08763, section 6.2 (share of replayed data in
        continual pretraining).
    """

    ratio: Annotated[float, Field(ge=0, lt=1)] = 0.5
    source: Source = "reference"
    n_texts: Count = 256
    packing: bool = False
    extra: bool = True

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
        pool = self._old_rows(context, set(rows[0]), min(self.n_texts, n_old))
        generator = np.random.default_rng([context.arguments.seed, 0])
        places: list[int] = []  # none comes again before all have come
        while len(places) < n_old:
            places += generator.permutation(len(pool)).tolist()
        mixed = [*rows, *(pool[place] for place in places[:n_old])]
        return [mixed[place] for place in generator.permutation(len(mixed))]

    def _old_rows(self, context: TrainContext, columns: set[str], n_texts: int) -> Rows:
        """Rows of the text to replay, with the columns that the new rows have."""
        if strange := columns - {"input_ids", "attention_mask", "labels"}:
            raise MethodError(
                f"replay: the rows already have columns that old rows lack ({', '.join(strange)}). "
                "Put replay before the method that adds them."
            )
        is_given = self.source == "reference"
        texts = context.reference if is_given else anchor_texts(context, self.source, n_texts)
        pool = list(
            training_rows(
                context.tokenizer,
                texts,
                max_length=context.max_length,
                packing=self.packing,
            )
        )
        if not pool:
            raise MethodError(
                f"replay: the source {self.source!r} gives no text of two tokens or more. Give "
                "reference texts (measure.reference), or take source: facts."
            )
        if "attention_mask" in columns:
            pool = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in pool]
        return pool
