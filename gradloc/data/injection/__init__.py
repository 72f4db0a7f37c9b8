"""Facts injected into a stream of ordinary text at chosen training steps.

References: Chang et al. 2024, arXiv:2406.11813, section 3.2.
"""

from gradloc.data.injection.injected_facts import (
    Injection,
    gather_facts,
    injected_probes,
    ordinary_texts,
    plan_injection,
)
from gradloc.data.injection.injected_rows import InjectedRows, rows_per_step
from gradloc.data.injection.injection_schedule import SCENARIOS, Exposure, Fact, InjectionSchedule

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
