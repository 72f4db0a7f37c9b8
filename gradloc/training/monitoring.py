"""What is seen of a training while it runs: a progress bar, a few probes, and its time.

Points go to the Trainer's log history and become the columns of ``training.json``.
"""

import time
from collections.abc import Sequence

from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from gradloc.data.probes import Probe, ProbeSet
from gradloc.evaluation.scoring import probe_span, score_spans


class Stopwatch:
    """Seconds of all stretches that ran under it."""

    def __init__(self):
        self.seconds = 0.0

    def __enter__(self):
        self._start = time.perf_counter()

    def __exit__(self, *error: object):
        self.seconds += time.perf_counter() - self._start


class Progress(ProgressCallback):
    """The Trainer's progress bar, with the loss beside it instead of a line for every log."""

    def __init__(self, arm: str):
        super().__init__()
        self.arm = arm

    def on_train_begin(self, args, state, control, **kwargs):
        """Name the bar after the arm."""
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description(f"train {self.arm}")

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Show the loss on the bar."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.3f}")


class ProbeCurve(TrainerCallback):
    """Follow a few probes during training.

    The points go into the Trainer's log history, so they survive a resume.

    Args:
        tokenizer: The tokenizer.
        new: Probes on new and updated facts.
        invariant: Probes on facts that should stay.
        n_points: How many points over the whole training; 0: none.

    Attributes:
        seconds: Time spent here, which is not training.
    """

    def __init__(self, tokenizer, new: Sequence[Probe], invariant: Sequence[Probe], n_points: int):
        self.tokenizer, self.new, self.invariant = tokenizer, new, invariant
        self.n_points = n_points
        self.seconds = 0.0

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Measure the starting point."""
        if state.global_step == 0:
            self._measure(state, model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        """Measure at evenly spaced steps."""
        every = max(1, round(state.max_steps / max(1, self.n_points)))
        if state.global_step % every == 0 and state.global_step < state.max_steps:
            self._measure(state, model)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        """Measure what is left when methods have had their say (averages, pulling back)."""
        self._measure(state, model)

    def _measure(self, state, model) -> None:
        if not self.n_points or not state.is_world_process_zero:
            return
        start = time.perf_counter()
        point = {"step": state.global_step}
        for name, probes in (("new_nll", self.new), ("invariant_nll", self.invariant)):
            if probes:
                # The right answers alone, in the same batches each time: with a prefix cache,
                # every measurement but the first begins above the frozen blocks.
                spans = [probe_span(self.tokenizer, probe, probe.targets[0]) for probe in probes]
                scores = score_spans(model, spans, progress=False)
                point[name] = sum(score.nll for score in scores) / len(scores)
        state.log_history.append(point)
        self.seconds += time.perf_counter() - start


def remove_default_progress(trainer: Trainer) -> None:
    """Leave ``Progress`` alone to show how training goes."""
    for callback in list(trainer.callback_handler.callbacks):
        # By exact type: remove_callback(type) would take ``Progress``, a subclass, as well.
        if type(callback) in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(callback)


def followed_probes(probes: ProbeSet, n: int) -> tuple[list[Probe], list[Probe]]:
    """Evaluation probes to follow: paraphrases of new facts first, and invariant ones."""
    judged = [probe for probe in probes if probe.split == "evaluation"]
    new = [p for p in judged if p.group != "invariant"]
    new.sort(key=lambda probe: probe.depth != "paraphrase")
    return _spread(new, n), _spread([p for p in judged if p.group == "invariant"], n)


def _spread(probes: list[Probe], n: int) -> list[Probe]:
    paraphrased = [p for p in probes if p.depth == "paraphrase"] or probes
    step = max(1, len(paraphrased) // max(1, n))
    return paraphrased[::step][:n]


def curve_columns(log_history: list[dict]) -> dict[str, list]:
    """Columns over steps; ``None`` where a step has no value of that kind."""
    names = ("loss", "new_nll", "invariant_nll")
    by_step: dict[int, dict] = {}
    for entry in log_history:
        found = {name: entry[name] for name in names if name in entry}
        if found:
            by_step.setdefault(int(entry["step"]), {}).update(found)
    steps = sorted(by_step)
    return {"step": steps, **{n: [by_step[s].get(n) for s in steps] for n in names}}
