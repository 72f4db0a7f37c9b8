"""A probe: a prompt with gold answers, and its whole text with the place of the answer."""

from dataclasses import dataclass

from gradloc.data.probes.spacing import join


@dataclass(frozen=True)
class Probe:
    """A prompt and the answers that count as right.

    Args:
        id: Unique within its set.
        group: ``new`` (no older answer exists), ``updated`` (the answer changed at the cut-off)
            or ``invariant`` (the answer stays).
        prompt: Text before the answer; empty only where the candidates are whole sentences.
        targets: Right answers; the first is the one whose likelihood is scored.
        depth: ``verbatim`` (as trained), ``paraphrase`` or ``composition`` (needs two facts).
        old_targets: Answers that were right before the cut-off (``updated`` only).
        suffix: Text after the answer.
        candidates: Choices for a multiple-choice reading of the probe.
        entity: What the probe is about; empty means that the probe stands for itself.
        date: ISO date at which the fact began to hold.
        split: ``localization`` probes choose the layers, ``evaluation`` probes judge the result;
            empty until ``ProbeSet.split_by_entity`` decides.
        task: Name of the benchmark it is reported under (``arc_easy``); empty: it is reported
            under its group.
        kind: Sub-type within its task or group (``Reasoning``, ``NP``), reported apart as well.
        case: The edit or passage it belongs to, for metrics that average within cases first.
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
    task: str = ""
    kind: str = ""
    case: str = ""

    def text(self, answer: str) -> tuple[str, int, int]:
        """The probe's whole text with an answer in its place.

        Args:
            answer: The answer; the spaces around it follow the rule of ``join``.

        Returns:
            The text, and the character span of the answer without surrounding white space.
        """
        before = join(self.prompt, answer)
        start = len(before) - len(answer.lstrip())
        return join(before, self.suffix), start, len(before.rstrip())
