"""Probes: prompts with gold answers, and where those answers lie in the tokens.

Comes in: JSONL rows or documents with entity mentions. Goes out: a ``ProbeSet``, and for each
probe the token ids with the salient tokens marked. It runs no model.
"""

from dataclasses import dataclass

GROUPS = ("new", "updated", "invariant")
DEPTHS = ("verbatim", "paraphrase", "composition")
SPLITS = ("localization", "evaluation")


@dataclass(frozen=True)
class Probe:
    """A prompt and the answers that count as right.

    Args:
        id: Unique within its set.
        group: ``new`` (no older answer exists), ``updated`` (the answer changed at the cut-off)
            or ``invariant`` (the answer stays).
        prompt: Text before the answer.
        targets: Right answers; the first is the one whose likelihood is scored.
        depth: ``verbatim`` (as trained), ``paraphrase`` or ``composition`` (needs two facts).
        old_targets: Answers that were right before the cut-off (``updated`` only).
        suffix: Text after the answer.
        candidates: Choices for a multiple-choice reading of the probe.
        entity: What the probe is about; empty means that the probe stands for itself.
        date: ISO date at which the fact began to hold.
        split: ``localization`` probes choose the layers, ``evaluation`` probes judge the result;
            empty until ``ProbeSet.split_by_entity`` decides.
    """

    id: str
    group: str
    prompt: str
    targets: tuple[str, ...]
    depth: str = "paraphrase"
    old_targets: tuple[str, ...] = ()
    suffix: str = ""
    candidates: tuple[str, ...] = ()
    entity: str = ""
    date: str = ""
    split: str = ""
