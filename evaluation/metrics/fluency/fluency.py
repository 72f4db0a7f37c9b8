"""How little a model's text repeats itself (KnowEdit, ROME).

A module of the Hugging Face ``evaluate`` library; it calls ``gradloc.evaluation.metrics``. The
card beside it tells the formula, the source and when the numbers mislead.
"""

import datasets
import evaluate

from gradloc.evaluation.metrics.editing import fluency

_DESCRIPTION = """
Weighted entropy of the two- and three-word sequences of what a model writes, mean over texts.
Unit: bits; higher is better, up to the entropy of good prose.
"""

_INPUTS = """
Args:
    predictions: Written texts.
    tokenize: Optional, function from a text to its words; white space by default.
Returns:
    fluency: Mean over texts, bits. KnowEdit's tables show 100 times this value.
    n: Number of texts.
"""

_CITATION = """
@article{zhang2024comprehensive,
  title={A Comprehensive Study of Knowledge Editing for Large Language Models},
  author={Zhang, Ningyu and others},
  journal={arXiv preprint arXiv:2401.01286},
  year={2024}
}
"""


class Fluency(evaluate.Metric):
    """How little a model's text repeats itself (KnowEdit, ROME)."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("string")}),
            reference_urls=["https://arxiv.org/abs/2401.01286"],
        )

    def _compute(self, predictions, tokenize=str.split):
        return {"fluency": fluency(list(predictions), tokenize), "n": len(predictions)}
