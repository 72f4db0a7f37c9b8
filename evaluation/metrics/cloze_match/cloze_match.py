"""Exact match and F1 of written answers (CKL, SQuAD).

A module of the Hugging Face ``evaluate`` library; it calls ``gradloc.evaluation.metrics``. The
card beside it tells the formula, the source and when the numbers mislead.
"""

import datasets
import evaluate
import numpy as np

from gradloc.evaluation.metrics.matching import exact_match, token_f1

_DESCRIPTION = """
Whether a written answer equals one of the right ones after normalisation, and how far its words
overlap with the nearest one. Fractions of 0-1; higher is better.
"""

_INPUTS = """
Args:
    predictions: What the model wrote, one text a question.
    references: The right answers of each question, one or more; the best one counts.
    released: Optional, normalise and score as the released code of CKL does.
Returns:
    exact_match: Mean over questions.
    f1: Mean over questions.
    n: Number of questions.
"""

_CITATION = """
@inproceedings{jang2022towards,
  title={Towards Continual Knowledge Learning of Language Models},
  author={Jang, Joel and Ye, Seonghyeon and Yang, Sohee and Shin, Joongbo and Han, Janghoon and
    Kim, Gyeonghun and Choi, Stanley Jungkyu and Seo, Minjoon},
  booktitle={ICLR},
  year={2022},
  note={arXiv:2110.03215}
}
"""


class ClozeMatch(evaluate.Metric):
    """Exact match and F1 of written answers (CKL, SQuAD)."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": datasets.Sequence(datasets.Value("string")),
                }
            ),
            reference_urls=["https://arxiv.org/abs/2110.03215"],
        )

    def _compute(self, predictions, references, released=False):
        pairs = list(zip(predictions, references, strict=True))
        found = {
            name: float(np.mean([measure(*pair, released=released) for pair in pairs]))
            for name, measure in (("exact_match", exact_match), ("f1", token_f1))
        }
        return {**found, "n": len(pairs)}
