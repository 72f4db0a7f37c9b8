"""How facts are acquired from exposures and lost afterwards (Chang et al. 2024).

A module of the Hugging Face ``evaluate`` library; the formulas are in
``exposures`` and ``decay``. The card beside it tells the source and when the numbers mislead.
"""

import datasets
import evaluate
import numpy as np

from .decay import OUTLIER_FACTOR, fit_decay, mean_retainability, remove_outliers
from .exposures import WINDOW, effectivity, retainability

_DESCRIPTION = """
Effectivity: loss of a fact's answer before an exposure minus the least loss in the window after
it, nats per token; higher is better. Retainability: share of what all exposures added that is
left t steps after the last one's best step; higher is better. Decay constant: how much of it is
lost as t grows tenfold; lower is better.
"""

_INPUTS = """
Args:
    losses: Mean loss of each fact's answer at every training step, nats per token: losses[t] is
        that of the parameters before update t.
    injection_steps: Steps at which each fact was trained on.
    times: Optional, steps after the last acquisition maximum at which retainability is taken;
        all from 1 on by default.
    window: Optional, steps in which an exposure's effect arrives; 50 by default.
    outlier_factor: Optional, interquartile ranges beyond which a value is left out; 1.5 as in the
        paper by default, 2.0 in the released code.
Returns:
    effectivity: Mean over all exposures of all facts, without outliers, nats per token.
    n_exposures: How many were averaged.
    times, retainability: Mean over facts at each time, without outliers.
    decay_constant, slope_standard_error, r2: Of the line through retainability over log10 of time.
    threshold_steps: Steps after which the line reaches 0 (learnability threshold).
    n: Number of facts.
"""

_CITATION = """
@inproceedings{chang2024how,
  title={How Do Large Language Models Acquire Factual Knowledge During Pretraining?},
  author={Chang, Hoyeon and Park, Jinho and Ye, Seonghyeon and Yang, Sohee and Seo, Youngkyung and
    Chang, Du-Seong and Seo, Minjoon},
  booktitle={NeurIPS},
  year={2024},
  note={arXiv:2406.11813}
}
"""


class Acquisition(evaluate.Metric):
    """How facts are acquired from exposures and lost afterwards (Chang et al. 2024)."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "losses": datasets.Sequence(datasets.Value("float64")),
                    "injection_steps": datasets.Sequence(datasets.Value("int64")),
                }
            ),
            reference_urls=["https://arxiv.org/abs/2406.11813"],
        )

    def _compute(
        self, losses, injection_steps, times=None, window=WINDOW, outlier_factor=OUTLIER_FACTOR
    ):
        facts = list(zip(losses, injection_steps, strict=True))
        times = range(1, max(map(len, losses))) if times is None else times
        gains = [effectivity(row, step, window) for row, steps in facts for step in steps]
        kept = remove_outliers(gains, outlier_factor)
        curves = [retainability(row, steps, list(times), window) for row, steps in facts]
        curve = mean_retainability(curves, outlier_factor)
        fit = fit_decay(times, curve.values)
        return {
            "effectivity": float(np.mean(kept)),
            "n_exposures": len(kept),
            "times": list(times),
            "retainability": curve.values.tolist(),
            "decay_constant": fit.decay_constant,
            "slope_standard_error": fit.slope_standard_error,
            "r2": fit.r2,
            "threshold_steps": fit.threshold_steps,
            "n": len(facts),
        }
