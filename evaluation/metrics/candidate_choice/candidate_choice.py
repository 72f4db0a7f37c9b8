"""Accuracy of choosing the right candidate (Entity Inferences, ARC, BLiMP).

A module of the Hugging Face ``evaluate`` library; it calls ``gradloc.evaluation.metrics``. The
card beside it tells the formula, the source and when the numbers mislead.
"""

import datasets
import evaluate
import numpy as np

from gradloc.evaluation.metrics.choice import choice_correct

_DESCRIPTION = """
Share of examples on which the likeliest candidate is a right one. Fraction of 0-1; higher is
better. With the candidates of minimal pairs this is BLiMP's accuracy; on examples about other
entities it is the specificity of an update.
"""

_INPUTS = """
Args:
    log_likelihoods: Log-likelihood of each candidate, summed over its tokens, nats.
    references: Index or indices of the right candidates; where there are several, any is right.
    lengths: Optional, what each candidate's log-likelihood is divided by, such as its characters,
        one list an example; adds accuracy_norm.
    before: Optional, log-likelihoods of the same candidates before the update; adds
        accuracy_before.
Returns:
    accuracy: Share of examples, by the plain sum.
    accuracy_norm: Share of examples, by the sum per length (with lengths).
    accuracy_before: accuracy of the model before the update (with before).
    n: Number of examples.
"""

_CITATION = """
@inproceedings{onoe2023can,
  title={Can {LM}s Learn New Entities from Descriptions? Challenges in Propagating Injected
    Knowledge},
  author={Onoe, Yasumasa and Zhang, Michael J. Q. and Padmanabhan, Shankar and Durrett, Greg and
    Choi, Eunsol},
  booktitle={ACL},
  year={2023},
  note={arXiv:2305.01651}
}
"""


class CandidateChoice(evaluate.Metric):
    """Accuracy of choosing the right candidate (Entity Inferences, ARC, BLiMP)."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "log_likelihoods": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Sequence(datasets.Value("int64")),
                }
            ),
            reference_urls=["https://arxiv.org/abs/2305.01651"],
        )

    def _compute(self, log_likelihoods, references, lengths=None, before=None):
        def accuracy(rows, lengths):
            triples = zip(rows, references, lengths, strict=True)
            return float(np.mean([choice_correct(*triple) for triple in triples]))

        plain = [None] * len(references)
        found = {"accuracy": accuracy(log_likelihoods, plain), "n": len(references)}
        if lengths is not None:
            found["accuracy_norm"] = accuracy(log_likelihoods, lengths)
        if before is not None:
            found["accuracy_before"] = accuracy(before, plain)
        return found
