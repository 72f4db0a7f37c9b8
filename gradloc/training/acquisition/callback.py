"""Record every probe's loss during training, in any ``Trainer``.

It writes ``acquisition.json`` and leaves the model, its gradients and the random state as found.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gradloc.data.injection import InjectionSchedule
from gradloc.data.probes import Probe, ProbeSet, load_probes
from gradloc.errors import GradlocError
from gradloc.evaluation.scoring import score_probes
from gradloc.training.acquisition.record import RECORD_FILE, AcquisitionRecord
from gradloc.training.trainer_hooks import ResumableCallback, resumed_checkpoint, saved_checkpoint

logger = logging.getLogger(__name__)

# The whole file is written anew each time; a long record is not written more often than this
# share of the time that measuring takes. assumption
_WRITING_SHARE = 0.1


class AcquisitionCallback(ResumableCallback):
    """Record each probe's target log-probability every n optimizer steps.

    Measured are the weights before update 0, n, 2n, ... and the final ones. The record stands in
    ``acquisition.json`` of the output folder and beside each checkpoint; a resumed training
    continues it. Every process measures, since a sharded model needs all of them; the first
    writes.

    Args:
        probes: Probes, or the path of their file. The first target of each is scored.
        every: Steps from one measurement to the next.
        exposures: When the probes' entities are trained on: an ``InjectionSchedule``, or entity
            -> steps. Without it the record can be plotted, but nothing says what was acquired.
        tokenizer: The model's tokenizer; ``None``: the trainer's ``processing_class``.

    Attributes:
        record: What has been measured; ``None`` before the first measurement.
        seconds: Time spent here, which is not training.

    Raises:
        GradlocError: The probes cannot be read, there are none, or ``every`` is below 1.

    References: Chang et al. 2024, arXiv:2406.11813, section 3.2.
    """

    def __init__(
        self,
        probes: ProbeSet | Iterable[Probe] | str | Path,
        every: int = 1,
        *,
        exposures: InjectionSchedule | Mapping[str, Sequence[int]] | None = None,
        tokenizer: Any = None,
    ):
        found = load_probes(probes) if isinstance(probes, (str, Path)) else tuple(probes)
        if not len(found):
            raise GradlocError("AcquisitionCallback has no probes; give at least one.")
        if every < 1:
            raise GradlocError(f"AcquisitionCallback(every={every}): give 1 or more steps.")
        # Other answers are not recorded, so they need not be scored.
        self.probes = tuple(
            replace(p, targets=p.targets[:1], old_targets=(), candidates=()) for p in found
        )
        self.every = every
        self.tokenizer = tokenizer
        self.record: AcquisitionRecord | None = None
        self.seconds = 0.0
        self._writing_seconds = 0.0
        self._scenarios: dict[str, str] = {}
        self._injection_steps: dict[str, tuple[int, ...]] = {}
        if isinstance(exposures, InjectionSchedule):
            self._scenarios = exposures.scenarios_of_facts()
            exposures = exposures.steps_of_facts()
        entities = {probe.entity for probe in self.probes}
        for entity, steps in (exposures or {}).items():
            if entity in entities and len(steps):
                self._injection_steps[entity] = tuple(sorted(int(step) for step in steps))
                self._scenarios.setdefault(entity, "injected")

    def on_train_begin(self, args, state, control, processing_class=None, **kwargs):
        """Take the trainer's tokenizer, and the record of the training that is resumed."""
        if self.tokenizer is None:
            if processing_class is None:
                raise GradlocError(
                    "AcquisitionCallback needs a tokenizer, and the trainer has none. Give it: "
                    "AcquisitionCallback(probes, tokenizer=tokenizer)."
                )
            # A processor of several kinds of input holds its tokenizer.
            self.tokenizer = getattr(processing_class, "tokenizer", processing_class)
        self.record = self._earlier(args, state)

    def on_step_begin(self, args, state, control, model, **kwargs):
        """Measure the weights before this update."""
        if state.global_step % self.every == 0:
            self._measure(args, state, model)

    def on_step_end(self, args, state, control, model, **kwargs):
        """Measure the final weights.

        Not in ``on_train_end``, where they may have been replaced by those of the best step.
        """
        if state.global_step >= state.max_steps or control.should_training_stop:
            self._measure(args, state, model)

    def on_save(self, args, state, control, **kwargs):
        """Put the record beside the weights of each checkpoint, from where a resume takes it."""
        folder = saved_checkpoint(args, state)
        if state.is_world_process_zero and self.record is not None and folder.is_dir():
            self.record.save(folder / RECORD_FILE)

    def on_train_end(self, args, state, control, **kwargs):
        """Write the whole record."""
        if state.is_world_process_zero and self.record is not None:
            self.record.save(Path(str(args.output_dir)) / RECORD_FILE)

    def _measure(self, args, state, model) -> None:
        if self.record is not None and state.global_step in self.record.steps[-1:]:
            return
        start = time.perf_counter()
        scores = score_probes(model, self.tokenizer, self.probes, progress=False)
        if self.record is None:
            self.record = self._empty(scores["n_tokens"])
        self.record = self.record.measured(state.global_step, [float(v) for v in scores["nll"]])
        measured = time.perf_counter()
        if state.is_world_process_zero and self._writing_seconds <= _WRITING_SHARE * self.seconds:
            self.record.save(Path(args.output_dir) / RECORD_FILE)
            self._writing_seconds += time.perf_counter() - measured
        self.seconds += time.perf_counter() - start

    def _empty(self, n_tokens: Sequence[int]) -> AcquisitionRecord:
        return AcquisitionRecord(
            probe_ids=tuple(probe.id for probe in self.probes),
            entities=tuple(probe.entity for probe in self.probes),
            depths=tuple(probe.depth for probe in self.probes),
            scenarios=tuple(self._scenarios.get(probe.entity, "") for probe in self.probes),
            n_tokens=tuple(int(n) for n in n_tokens),
            injection_steps=self._injection_steps,
        )

    def _earlier(self, args, state) -> AcquisitionRecord | None:
        """The record of the training that continues; a new training has none."""
        step = state.global_step
        if step == 0:
            return None
        # The checkpoint's own copy first: a file in the folder may be of another training.
        folders = (resumed_checkpoint(args, state), Path(args.output_dir))
        paths = [folder / RECORD_FILE for folder in folders]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            logger.warning(
                "%s: no such file, so the record of the probes begins at step %d; what was "
                "measured before is not in it.", paths[1], step,
            )  # fmt: skip
            return None
        record = AcquisitionRecord.load(path).until(step)
        if not record.follows_the_same_as(self._empty(record.n_tokens)):
            raise GradlocError(
                f"{path}: was recorded with other probes or injections than those given. Resume "
                "with the same, or remove the file to begin a new record at this step."
            )
        return record
