"""What a sequence of training stages did to every task (GEM, RWalk).

A module of the Hugging Face ``evaluate`` library; it calls ``gradloc.evaluation.metrics``. The
card beside it tells the formula, the source and when the numbers mislead.
"""

import datasets
import evaluate

from gradloc.evaluation.metrics.stage_transfer import stage_measures

_DESCRIPTION = """
Average accuracy, backward and forward transfer and forgetting from the matrix of scores after
each stage on each task. Unit: that of the scores; higher is better except for forgetting, where
lower is better.
"""

_INPUTS = """
Args:
    scores: One row a stage: the score on every task after it, in the order in which the tasks are
        learned. Tasks not yet learned may be None, but forward transfer needs the next one.
    base: Optional, score on every task before the first stage, for forward transfer.
Returns:
    average_accuracy, average_incremental_accuracy, backward_transfer, forward_transfer: higher is
        better. forward_transfer is None without base.
    forgetting: lower is better.
    n_stages: Number of stages.
"""

_CITATION = """
@inproceedings{lopezpaz2017gradient,
  title={Gradient Episodic Memory for Continual Learning},
  author={Lopez-Paz, David and Ranzato, Marc'Aurelio},
  booktitle={NeurIPS},
  year={2017},
  note={arXiv:1706.08840}
}
@inproceedings{chaudhry2018riemannian,
  title={Riemannian Walk for Incremental Learning: Understanding Forgetting and Intransigence},
  author={Chaudhry, Arslan and Dokania, Puneet K. and Ajanthan, Thalaiyasingam and
    Torr, Philip H. S.},
  booktitle={ECCV},
  year={2018},
  note={arXiv:1801.10112}
}
"""


class StageTransfer(evaluate.Metric):
    """What a sequence of training stages did to every task (GEM, RWalk)."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"scores": datasets.Sequence(datasets.Value("float64"))}),
            reference_urls=["https://arxiv.org/abs/1706.08840"],
        )

    def _compute(self, scores, base=None):
        return {**stage_measures(scores, base), "n_stages": len(scores)}
