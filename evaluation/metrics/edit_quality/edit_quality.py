"""Edit success, portability and locality (KnowEdit).

A module of the Hugging Face ``evaluate`` library; it calls ``gradloc.evaluation.metrics``. The
card beside it tells the formula, the source and when the numbers mislead.
"""

import datasets
import evaluate
import numpy as np

from gradloc.evaluation.metrics.editing import agreement, case_weights, token_accuracy

_DESCRIPTION = """
Token accuracy: share of an answer's tokens that are the likeliest under teacher forcing; edit
success on the edit's own prompt, portability on what follows from it. Agreement: share of places
where the likeliest token is still that of the pristine model; locality. Fractions of 0-1; higher
is better.
"""

_INPUTS = """
Args:
    predictions: Likeliest token id at each place of the answer, after the edit.
    references: The right token ids.
    pristine: Optional, likeliest token ids of the unedited model at the same places, one list an
        item; adds agreement.
    cases, kinds: Optional, edit and sub-type of each item; the mean is then taken within
        sub-types, over sub-types and over edits, as KnowEdit does. Otherwise over items.
Returns:
    token_accuracy: Mean over items.
    agreement: Mean over items (with pristine).
    n: Number of items.
"""

_CITATION = """
@article{zhang2024comprehensive,
  title={A Comprehensive Study of Knowledge Editing for Large Language Models},
  author={Zhang, Ningyu and others},
  journal={arXiv preprint arXiv:2401.01286},
  year={2024}
}
"""


class EditQuality(evaluate.Metric):
    """Edit success, portability and locality (KnowEdit)."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("int64")),
                    "references": datasets.Sequence(datasets.Value("int64")),
                }
            ),
            reference_urls=["https://arxiv.org/abs/2401.01286"],
        )

    def _compute(self, predictions, references, pristine=None, cases=None, kinds=None):
        n = len(predictions)
        weights = None
        if cases is not None:
            weights = case_weights(cases, [""] * n if kinds is None else kinds)

        def mean(measure, others):
            values = [measure(*pair) for pair in zip(predictions, others, strict=True)]
            return float(np.average(values, weights=weights))

        found = {"token_accuracy": mean(token_accuracy, references), "n": n}
        if pristine is not None:
            found["agreement"] = mean(agreement, pristine)
        return found
