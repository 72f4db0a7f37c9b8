"""Scores of single probes and texts under one model.

Comes in: a causal language model with its tokenizer, probes or texts. Goes out: columns with one
value an item, and the model as it was. It averages nothing (``gradloc.metrics`` does) and lets
the model write nothing (``gradloc.answers`` does).
"""

from gradloc.scoring.engine import TOKEN_BUDGET, score_spans
from gradloc.scoring.items import TEXT_LENGTH, probe_span, score_probes, score_texts
from gradloc.scoring.tokens import Span, SpanScore, context_length

__all__ = [
    "TEXT_LENGTH",
    "TOKEN_BUDGET",
    "Span",
    "SpanScore",
    "context_length",
    "probe_span",
    "score_probes",
    "score_spans",
    "score_texts",
]
