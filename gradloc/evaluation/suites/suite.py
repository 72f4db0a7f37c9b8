"""A suite with its probes and texts: what a checkpoint is asked."""

import dataclasses
from dataclasses import replace

from gradloc.data.probes import Probe
from gradloc.evaluation.bootstrap import N_BOOTSTRAP
from gradloc.evaluation.metrics import PROBE_METRICS
from gradloc.evaluation.metrics.metric_table import usual_metrics
from gradloc.evaluation.score_record import CheckpointScores

N_EXAMPLES = 6

# What a benchmark is read by, where the suite does not say otherwise.
TASK_METRICS = {
    "ecbd": ("nll", "perplexity", "perplexity_macro"),
    "ecbd_popular": ("nll", "perplexity"),
    "knowedit_edit": ("token_accuracy", "fluency"),
    "knowedit_portability": ("token_accuracy",),
    "knowedit_locality": ("agreement",),
    "temporalwiki_changed": ("perplexity", "perplexity_whole"),
    "temporalwiki_unchanged": ("perplexity", "perplexity_whole"),
}


@dataclasses.dataclass(frozen=True)
class Suite:
    """Everything that a checkpoint is asked, read from its files.

    Args:
        name: Name of the suite.
        probes: The probes.
        texts: Domain -> general texts.
        screen_invariant: Count only those invariant facts as known that the baseline has right.
        n_examples: Probes shown with every checkpoint's own answer.
        n_bootstrap: Resamples for intervals.
        seed: Seed of the resamples.
        example_ids: The probes that are shown; ``None``: chosen when a first model is scored.
        n_invariant_candidates: Known facts before screening; ``None``: not screened.
        metrics: Task ("" for probes that are reported by group) -> its metrics; tasks that are
            missing have the usual ones.
        ambiguous: What to do with probes whose answers cannot be told apart: ``refuse``,
            ``leave_out`` or ``keep``.
    """

    name: str
    probes: tuple[Probe, ...]
    texts: dict[str, tuple[str, ...]]
    screen_invariant: bool = True
    n_examples: int = N_EXAMPLES
    n_bootstrap: int = N_BOOTSTRAP
    seed: int = 0
    example_ids: tuple[str, ...] | None = None
    n_invariant_candidates: int | None = None
    metrics: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    ambiguous: str = "refuse"

    def metrics_of(self, task: str) -> tuple[str, ...]:
        """Names of the metrics that the probes of a task are read by."""
        if task in self.metrics:
            return self.metrics[task]
        if task in TASK_METRICS:
            return TASK_METRICS[task]
        members = [probe for probe in self.probes if probe.task == task]
        return usual_metrics(sum(bool(p.candidates) for p in members), len(members))

    def probes_of_requests(self) -> dict[str, tuple[Probe, ...]]:
        """Request -> the probes that some metric needs it for."""
        needed: dict[str, tuple[Probe, ...]] = {"answers": self.probes}
        for task in dict.fromkeys(probe.task for probe in self.probes):
            members = tuple(probe for probe in self.probes if probe.task == task)
            requests = {PROBE_METRICS[name].request for name in self.metrics_of(task)}
            for request in requests - {"answers"}:
                needed[request] = (*needed.get(request, ()), *members)
        return needed

    def screened(self, baseline: CheckpointScores) -> "Suite":
        """The suite to ask the arms: without the invariant facts that the baseline has wrong.

        What the baseline does not know cannot be forgotten. The examples become those that the
        baseline answered.

        Args:
            baseline: Scores of the baseline on all probes of this suite.
        """
        right = dict(zip(baseline.probe_ids, baseline.columns["exact"], strict=True))
        kept = tuple(
            probe
            for probe in self.probes
            if not self.screen_invariant or not is_known_fact(probe) or right[probe.id]
        )
        n_invariant = sum(is_known_fact(probe) for probe in self.probes)
        return replace(
            self,
            probes=kept,
            example_ids=tuple(baseline.answers),
            n_invariant_candidates=n_invariant if self.screen_invariant else None,
        )


def is_known_fact(probe: Probe) -> bool:
    """Whether a probe asks for a fact that stays, and is no benchmark of its own."""
    return probe.group == "invariant" and not probe.task
