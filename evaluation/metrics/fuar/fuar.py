"""What is forgotten for each thing that is learned (FUAR).

A module of the Hugging Face ``evaluate`` library; it calls ``gradloc.evaluation.metrics``. The
card beside it tells the formula, the source and when the numbers mislead.
"""

import datasets
import evaluate

from gradloc.evaluation.metrics.fuar import fuar

_DESCRIPTION = """
Forgotten / (updated + acquired) ratio of a model after one or several training stages: scores
lost on knowledge to keep, divided by scores gained on knowledge to update and to acquire.
0: nothing was forgotten; 1: as much was forgotten as gained. No unit; lower is better.
"""

_INPUTS = """
Args:
    invariant_before, invariant_after: Scores on what had to be kept, of the earlier models and
        of the last one, one an earlier model. None: not determined.
    updated_before, updated_after: The same on updated facts of the last stage.
    new_before, new_after: The same on new facts of the last stage.
Returns:
    fuar: The ratio; None where nothing was gained.
    n_stages: Number of earlier models.
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


class Fuar(evaluate.Metric):
    """What is forgotten for each thing that is learned (FUAR)."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "invariant_before": datasets.Value("float64"),
                    "invariant_after": datasets.Value("float64"),
                    "updated_before": datasets.Value("float64"),
                    "updated_after": datasets.Value("float64"),
                    "new_before": datasets.Value("float64"),
                    "new_after": datasets.Value("float64"),
                }
            ),
            reference_urls=["https://arxiv.org/abs/2110.03215"],
        )

    def _compute(
        self,
        invariant_before,
        invariant_after,
        updated_before,
        updated_after,
        new_before,
        new_after,
    ):
        ratio = fuar(
            (invariant_before, invariant_after),
            (updated_before, updated_after),
            (new_before, new_after),
        )
        return {"fuar": ratio, "n_stages": len(invariant_before)}
