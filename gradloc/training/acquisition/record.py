"""The record of a training: every probe's loss at the measured steps."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from gradloc.utils.records import FloatOrNan, Record

RECORD_FILE = "acquisition.json"
_PROBE_COLUMNS = ("probe_ids", "entities", "depths", "scenarios", "n_tokens")


@dataclass(frozen=True)
class AcquisitionRecord(Record):
    """Losses of probes during training, and when their facts were trained on.

    ``nll[i]`` belongs to the weights before update ``steps[i]``; the last step may be the number
    of updates, whose weights are the final ones.

    Args:
        probe_ids: Ids of the probes.
        entities: Entity of each probe.
        depths: ``verbatim``, ``paraphrase`` or ``composition``, of each probe.
        scenarios: ``once``, ``duplicated``, ``paraphrased``, the user's own word, or empty for a
            probe whose entity is not injected; of each probe.
        n_tokens: Tokens of each probe's answer.
        injection_steps: Entity -> the updates whose batches held a passage about it, ascending.
        steps: The measured steps, ascending.
        nll: Negative log-likelihood of each answer in nats per token, (n_steps, n_probes); times
            ``n_tokens`` it is that of the whole answer. Lower is better.
    """

    KIND: ClassVar[str] = "acquisition"
    WHAT: ClassVar[str] = "acquisition record"

    probe_ids: tuple[str, ...]
    entities: tuple[str, ...]
    depths: tuple[str, ...]
    scenarios: tuple[str, ...]
    n_tokens: tuple[int, ...]
    injection_steps: dict[str, tuple[int, ...]] = field(default_factory=dict)
    steps: tuple[int, ...] = ()
    nll: tuple[tuple[FloatOrNan, ...], ...] = ()

    def log_probabilities(self, *, per_token: bool = True) -> np.ndarray:
        """Log-probability of each answer in nats, (n_steps, n_probes); higher is better.

        Args:
            per_token: Mean over the answer's tokens; ``False``: their sum.
        """
        found = -np.array(self.nll, float).reshape(len(self.steps), len(self.probe_ids))
        return found if per_token else found * np.array(self.n_tokens)

    def measured(self, step: int, nll: list[float]) -> "AcquisitionRecord":
        """The record with one more measurement."""
        return replace(self, steps=(*self.steps, int(step)), nll=(*self.nll, tuple(nll)))

    def until(self, step: int) -> "AcquisitionRecord":
        """The record up to a step, that step included."""
        n_kept = sum(measured <= step for measured in self.steps)
        return replace(self, steps=self.steps[:n_kept], nll=self.nll[:n_kept])

    def follows_the_same_as(self, other: "AcquisitionRecord") -> bool:
        """Whether two records differ in nothing but their measurements."""
        return self.until(-1) == other.until(-1)

    def problems(self) -> list[str]:
        """Columns whose length is not that of the probes or steps."""
        n_probes = len(self.probe_ids)
        lengths = {name: len(getattr(self, name)) for name in _PROBE_COLUMNS}
        lengths |= {f"nll.{row}": len(values) for row, values in enumerate(self.nll)}
        problems = [
            f"{name}: has {length} entries for {n_probes} probes"
            for name, length in lengths.items()
            if length != n_probes
        ]
        if len(self.nll) != len(self.steps):
            problems.append(f"nll: has {len(self.nll)} rows for {len(self.steps)} steps")
        return problems

    def save(self, path: str | Path, *, compact: bool = False) -> Path:
        """Write the record, whole or not at all."""
        # Six decimals: float32 holds no more of a loss of a few nats.
        nll = tuple(tuple(round(value, 6) for value in row) for row in self.nll)
        return super(AcquisitionRecord, replace(self, nll=nll)).save(path, compact=compact)
