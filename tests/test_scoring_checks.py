import pytest

from gradloc.data.probes import Probe
from gradloc.errors import ProbeError
from gradloc.evaluation.scoring.answer_checks import distinguishable

PROBES = (
    Probe("good", "invariant", "Grass is", ("green",), candidates=("green", "red")),
    Probe("twice", "invariant", "Grass is", ("green",), candidates=("red", "green", "red")),
    Probe("begins", "invariant", "Grass is", ("red",), candidates=("reddish", "red")),
    Probe("old", "updated", "Money:", ("euro",), old_targets=("euro note",)),
    Probe("unknown", "invariant", "It is", ("\u00e9",), candidates=("\u00e9", "\u00e8")),
)


def test_answers_that_cannot_be_distinguishable_are_refused_together(character_tokenizer):
    with pytest.raises(ProbeError) as caught:
        distinguishable(character_tokenizer, PROBES)
    text = str(caught.value)
    for part in (
        "probe 'twice': 'red' and 'red' are the same tokens",
        "probe 'begins': 'reddish' begins with 'red'",
        "probe 'old': 'euro note' begins with 'euro'",
        # Both letters are unknown to the tokenizer.
        "probe 'unknown': '\u00e9' and '\u00e8' are the same tokens",
        "'ambiguous: leave_out'",
    ):
        assert part in text
    assert "probe 'good'" not in text


def test_they_can_be_left_out_or_kept(character_tokenizer):
    left = distinguishable(character_tokenizer, PROBES, "leave_out")
    assert [probe.id for probe in left] == ["good"]
    assert distinguishable(character_tokenizer, PROBES, "keep") == PROBES
