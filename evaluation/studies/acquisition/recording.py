"""Every probe's loss all along a training: the record, and the callback that makes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from transformers import TrainerCallback

from gradloc.data.probes import Probe
from gradloc.evaluation.scoring import score_probes
from gradloc.utils.records import FloatOrNan, Record

RECORD_FILE = "acquisition.json"


@dataclass(frozen=True)
class AcquisitionRecord(Record):
    """Losses of probes during training, and when their facts were trained on.

    Args:
        probe_ids, entities, depths: Of each probe.
        scenarios: How its fact is injected; empty where it is not; of each probe.
        n_tokens: Tokens of each probe's answer.
        injection_steps: Entity -> the updates whose batches held a passage about it, ascending.
        steps: The measured steps, ascending. The last may be the number of updates.
        nll: Negative log-likelihood of each answer in nats per token, (n_steps, n_probes), of the
            weights before update ``steps[i]``. Lower is better.
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

    def problems(self) -> list[str]:
        """Columns whose length is not that of the probes or steps."""
        columns = {name: getattr(self, name) for name in ("entities", "depths", "scenarios")}
        columns |= {f"nll.{number}": row for number, row in enumerate(self.nll)}
        n_probes = len(self.probe_ids)
        problems = [
            f"{name}: has {len(column)} entries for {n_probes} probes"
            for name, column in columns.items()
            if len(column) != n_probes
        ]
        if len(self.nll) != len(self.steps):
            problems.append(f"nll: has {len(self.nll)} rows for {len(self.steps)} steps")
        return problems


class AcquisitionCallback(TrainerCallback):
    """Record each probe's loss before update 0, n, 2n, ... and that of the final weights.

    Every process measures, since a sharded model needs all of them; the first writes
    ``acquisition.json`` of the output folder. A resumed training begins a new record.

    Args:
        probes: The probes. The first target of each is scored.
        tokenizer: The model's tokenizer.
        every: Steps from one measurement to the next.
        exposures: Entity -> the steps at which it is trained on.
        scenarios: Entity -> its scenario.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        tokenizer: Any,
        every: int,
        exposures: Mapping[str, Sequence[int]],
        scenarios: Mapping[str, str],
    ):
        # Other answers are not recorded, so they need not be scored.
        self.probes = [
            replace(p, targets=p.targets[:1], old_targets=(), candidates=()) for p in probes
        ]
        self.tokenizer, self.every = tokenizer, every
        self.record = AcquisitionRecord(
            probe_ids=tuple(probe.id for probe in probes),
            entities=tuple(probe.entity for probe in probes),
            depths=tuple(probe.depth for probe in probes),
            scenarios=tuple(scenarios.get(probe.entity, "") for probe in probes),
            n_tokens=(),
            injection_steps={name: tuple(steps) for name, steps in exposures.items()},
        )

    def on_step_begin(self, args, state, control, model, **kwargs):
        """Measure the weights before this update."""
        if state.global_step % self.every == 0:
            self._measure(args, state, model)

    def on_step_end(self, args, state, control, model, **kwargs):
        """Measure the final weights."""
        if state.global_step >= state.max_steps:
            self._measure(args, state, model)

    def _measure(self, args, state, model) -> None:
        scores = score_probes(model, self.tokenizer, self.probes, progress=False)
        # Six decimals: float32 holds no more of a loss of a few nats.
        nll = tuple(round(float(value), 6) for value in scores["nll"])
        self.record = replace(
            self.record,
            n_tokens=tuple(int(n) for n in scores["n_tokens"]),
            steps=(*self.record.steps, state.global_step),
            nll=(*self.record.nll, nll),
        )
        if state.is_world_process_zero:
            self.record.save(Path(args.output_dir) / RECORD_FILE)
