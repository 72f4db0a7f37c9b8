"""Perplexity of answer spans, averaged over examples (ECBD).

A module of the Hugging Face ``evaluate`` library; the formulas are in
``perplexity``. The card beside it tells the source and when the numbers mislead.
"""

import datasets
import evaluate

from .perplexity import by_type, corpus_perplexity, example_means, macro_perplexity

_DESCRIPTION = """
Perplexity of the tokens of an answer: exp of the mean over examples of the mean negative
log-likelihood of the answer's tokens. 1 at best, unit: perplexity (no unit); lower is better.
"""

_INPUTS = """
Args:
    token_nlls: Negative log-likelihood of each token of each answer, nats.
    groups: Optional, entity or page of each example, for the macro average.
    types: Optional, type of each example, such as the kind of span.
Returns:
    perplexity: Every example counts the same.
    perplexity_macro: Every group counts the same (with groups).
    perplexity_by_type: Type -> perplexity (with types).
    n_by_type: Type -> number of examples (with types).
    n: Number of examples.
"""

_CITATION = """
@inproceedings{onoe2022entity,
  title={Entity Cloze By Date: What {LM}s Know About Unseen Entities},
  author={Onoe, Yasumasa and Zhang, Michael J. Q. and Choi, Eunsol and Durrett, Greg},
  booktitle={Findings of NAACL},
  year={2022},
  note={arXiv:2205.02832}
}
"""


class SpanPerplexity(evaluate.Metric):
    """Perplexity of answer spans, averaged over examples (ECBD)."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"token_nlls": datasets.Sequence(datasets.Value("float64"))}
            ),
            reference_urls=["https://arxiv.org/abs/2205.02832"],
        )

    def _compute(self, token_nlls, groups=None, types=None):
        means = example_means(token_nlls)
        found = {"perplexity": corpus_perplexity(token_nlls), "n": len(means)}
        if groups is not None:
            found["perplexity_macro"] = macro_perplexity(means, groups)
        if types is not None:
            parts = by_type(means, types)
            found["perplexity_by_type"] = {name: part.perplexity for name, part in parts.items()}
            found["n_by_type"] = {name: part.n for name, part in parts.items()}
        return found
