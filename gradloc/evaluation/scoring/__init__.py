"""Scores of single probes and texts under one model."""

from gradloc.evaluation.scoring.engine import TOKEN_BUDGET, score_spans
from gradloc.evaluation.scoring.items import TEXT_LENGTH, probe_span, score_probes, score_texts
from gradloc.evaluation.scoring.tokens import Span, SpanScore, context_length

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
