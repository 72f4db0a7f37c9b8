"""Whether a model gives the updated or the outdated answer (EvolvingQA).

A module of the Hugging Face ``evaluate`` library; the formulas are in
``updates``. The card beside it tells the source and when the numbers mislead.
"""

import datasets
import evaluate
import numpy as np

from .updates import OldAndNew, match_old_and_new, prefers_updated

_DESCRIPTION = """
Exact match and F1 of what a model writes with the outdated and with the updated answer, and the
share of questions on which the updated answer is the likelier one. Fractions of 0-1; higher is
better for new_exact_match, new_f1 and prefers_updated, lower for old_exact_match and old_f1.
"""

_INPUTS = """
Args:
    predictions: What the model wrote, one text a question.
    outdated: Answers that were right before, one or more a question.
    updated: Answers that are right now, one or more a question.
    updated_log_probs, outdated_log_probs: Optional, mean log-probability of each answer's tokens,
        the answer given (teacher-forced), nats, one a question.
    released: Optional, normalise as the released code does.
Returns:
    old_exact_match, old_f1: Mean over questions; lower is better.
    new_exact_match, new_f1: Mean over questions; higher is better.
    prefers_updated: Share of questions (with the log-probabilities); higher is better.
    n: Number of questions.
"""

_CITATION = """
@inproceedings{kim2024carpe,
  title={Carpe Diem: On the Evaluation of World Knowledge in Lifelong Language Models},
  author={Kim, Yujin and Yoon, Jaehong and Ye, Seonghyeon and Bae, Sangmin and Ho, Namgyu and
    Hwang, Sung Ju and Yun, Se-Young},
  booktitle={NAACL},
  year={2024},
  note={arXiv:2311.08106}
}
"""


class OldVersusNew(evaluate.Metric):
    """Whether a model gives the updated or the outdated answer (EvolvingQA)."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "outdated": datasets.Sequence(datasets.Value("string")),
                    "updated": datasets.Sequence(datasets.Value("string")),
                }
            ),
            reference_urls=["https://arxiv.org/abs/2311.08106"],
        )

    def _compute(
        self,
        predictions,
        outdated,
        updated,
        updated_log_probs=None,
        outdated_log_probs=None,
        released=False,
    ):
        rows = [
            match_old_and_new(*row, released=released)
            for row in zip(predictions, outdated, updated, strict=True)
        ]
        found = dict(zip(OldAndNew._fields, np.mean(rows, axis=0).tolist(), strict=True))
        if updated_log_probs is not None:
            preferred = prefers_updated(updated_log_probs, outdated_log_probs)
            found["prefers_updated"] = float(np.mean(preferred))
        return {**found, "n": len(rows)}
