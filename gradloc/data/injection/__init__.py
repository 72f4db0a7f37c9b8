"""Facts injected into a stream of ordinary text at chosen training steps.

Comes in: passages that state facts, the steps at which they are trained on, and ordinary token
rows. Goes out: a dataset for any ``Trainer`` that shows each passage at exactly its steps. It
trains nothing and measures nothing.

References: Chang et al. 2024, arXiv:2406.11813, section 3.2.
"""

from gradloc.data.injection.facts import (
    Injection,
    gather_facts,
    injected_probes,
    ordinary_texts,
    plan_injection,
)
from gradloc.data.injection.rows import InjectedRows, rows_per_step
from gradloc.data.injection.schedule import SCENARIOS, Exposure, Fact, InjectionSchedule

__all__ = [
    "SCENARIOS",
    "Exposure",
    "Fact",
    "InjectedRows",
    "Injection",
    "InjectionSchedule",
    "gather_facts",
    "injected_probes",
    "ordinary_texts",
    "plan_injection",
    "rows_per_step",
]
