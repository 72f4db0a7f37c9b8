"""The record of a training: every probe's loss at the measured steps.

Comes in: measurements. Goes out: ``acquisition.json`` and the record again. It measures nothing.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from gradloc.errors import GradlocError
from gradloc.utils.io import read_json, to_jsonable, write_json

RECORD_FILE = "acquisition.json"
FORMAT = 1
_PROBE_COLUMNS = ("probe_ids", "entities", "depths", "scenarios", "n_tokens")


@dataclass(frozen=True)
class AcquisitionRecord:
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

    probe_ids: tuple[str, ...]
    entities: tuple[str, ...]
    depths: tuple[str, ...]
    scenarios: tuple[str, ...]
    n_tokens: tuple[int, ...]
    injection_steps: dict[str, tuple[int, ...]] = field(default_factory=dict)
    steps: tuple[int, ...] = ()
    nll: tuple[tuple[float, ...], ...] = ()

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

    def save(self, path: str | Path) -> Path:
        """Write the record, whole or not at all."""
        # Six decimals: float32 holds no more of a loss of a few nats.
        nll = [[round(value, 6) for value in row] for row in self.nll]
        return write_json(
            path,
            {"format": FORMAT, "kind": "acquisition", **to_jsonable(replace(self, nll=()))}
            | {"nll": nll},
        )

    @classmethod
    def load(cls, path: str | Path) -> "AcquisitionRecord":
        """Read what ``save`` wrote.

        Raises:
            GradlocError: The file is missing, of another kind or format, or its parts do not
                belong together.
        """
        data = read_json(path, "acquisition record")
        if not isinstance(data, dict) or data.pop("kind", None) != "acquisition":
            raise GradlocError(f"{path}: not an acquisition record of gradloc.")
        if (found := data.pop("format", None)) != FORMAT:
            raise GradlocError(f"{path}: record format {found}, this version reads {FORMAT}.")
        try:
            # A loss that is not finite is null in JSON.
            nll = tuple(tuple(np.nan if v is None else v for v in row) for row in data.pop("nll"))
            steps = {name: tuple(s) for name, s in data.pop("injection_steps").items()}
            columns = {name: tuple(data.pop(name)) for name in (*_PROBE_COLUMNS, "steps")}
            record = cls(**columns, injection_steps=steps, nll=nll)
        except (KeyError, TypeError, AttributeError) as error:
            raise GradlocError(f"{path}: is damaged ({error!r}); restore or remove it.") from error
        n_probes = len(record.probe_ids)
        lengths = {len(getattr(record, name)) for name in _PROBE_COLUMNS}
        lengths |= {len(row) for row in nll}
        if lengths != {n_probes} or len(nll) != len(record.steps):
            raise GradlocError(
                f"{path}: is damaged: its columns have {sorted(lengths)} entries for {n_probes} "
                f"probes, and {len(nll)} measurements for {len(record.steps)} steps; restore or "
                "remove it."
            )
        return record
