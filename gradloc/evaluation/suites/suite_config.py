"""A suite as its YAML file says it."""

from typing import Annotated, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from pydantic.functional_validators import AfterValidator

from gradloc.config.recipe import Count, ProbeSource, TextSource
from gradloc.evaluation.metrics import PROBE_METRICS
from gradloc.utils.names import did_you_mean

_STRICT = ConfigDict(extra="forbid", strict=True)


def _check_metric(name: str) -> str:
    if name not in PROBE_METRICS:
        raise ValueError(f"there is no metric {name!r}. {did_you_mean(name, PROBE_METRICS)}")
    return name


MetricName = Annotated[str, AfterValidator(_check_metric)]
Ambiguous = Literal["refuse", "leave_out", "keep"]


@dataclass(frozen=True, config=_STRICT)
class SuiteSource(ProbeSource):
    """One file of probes in a suite.

    Args:
        path: The file.
        format: Key of a benchmark whose form the file has (``knowedit``, ``multiple_choice``);
            empty: probes as JSONL.
        fields: Probe field -> column of the file, where they differ (``{prompt: prefix}``).
        defaults: Probe field -> value for rows that lack it (``{group: invariant}``).
        task: Name to report these probes under; empty: what the file says, or their group.
        metrics: Metrics of these probes; empty: those of the suite.
        max_probes: At most so many probes of each group and kind; default: those of the suite.
    """

    task: str = ""
    metrics: tuple[MetricName, ...] = ()
    max_probes: Count | None = None


@dataclass(frozen=True, config=_STRICT)
class SuiteConfig:
    """A suite as its YAML file says it.

    Args:
        name: Name of the suite, as results show it.
        description: What it is for, in a sentence.
        probes: Probe files. Probes marked ``localization`` are left out: layers were chosen by
            them.
        recipe: A recipe, by name or path: the probes that its corpus makes and its arms are
            judged by, and not those that it chooses layers by.
        metrics: Metrics of all probes; empty: the usual ones, and those that belong to a
            benchmark.
        groups: Ask only probes of these groups; empty: of all.
        general_text: Texts for nats per token; empty: the shipped held-out passages.
        screen_invariant: Count only those invariant facts as known that the baseline has right.
        max_probes: At most so many probes of each group, task and kind, the first of them.
        ambiguous: What to do with a probe whose answers cannot be told apart (two candidates of
            the same tokens, an answer that another begins with): ``refuse`` the suite,
            ``leave_out`` the probe, or ``keep`` it, as lm-evaluation-harness does.
    """

    name: str
    description: str = ""
    probes: tuple[SuiteSource, ...] = ()
    recipe: str = ""
    metrics: tuple[MetricName, ...] = ()
    groups: tuple[Literal["new", "updated", "invariant"], ...] = ()
    general_text: tuple[TextSource, ...] = ()
    screen_invariant: bool = True
    max_probes: Count = 400
    ambiguous: Ambiguous = "refuse"
