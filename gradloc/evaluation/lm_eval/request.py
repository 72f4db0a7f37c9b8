"""A probe as a request of the harness."""

from gradloc.data.probes import Probe


def harness_request(probe: Probe, answer: str) -> tuple[str, str]:
    """A probe with an answer as the harness's pair of context and continuation.

    The blank between them stands in the continuation, where the tokens of most vocabularies have
    it. What follows the answer is left out: it is not scored.

    Args:
        probe: The probe.
        answer: One of its answers.

    Returns:
        Context (the same for all answers of the probe) and continuation.

    Example:
        >>> harness_request(Probe("a", "new", "The film (", ("1994",), suffix=")"), "1994")
        ('The film (', '1994')
        >>> harness_request(Probe("b", "new", "The capital is", ("Oslo",)), "Oslo")
        ('The capital is', ' Oslo')
    """
    text, start, end = probe.text(answer)
    border = len(text[:start].rstrip())
    return text[:border], text[border:end]
