"""Probes: prompts with gold answers, and the text that they make together.

Comes in: JSONL rows. Goes out: a ``ProbeSet``, and for each probe its text with the place of the
answer. It runs no model and knows no tokens (see ``gradloc.data.spans``).
"""

from gradloc.data.probes.parsing import DEPTHS, GROUPS, SPLITS
from gradloc.data.probes.probe import Probe
from gradloc.data.probes.probe_set import ProbeSet, load_probes, read_probe_rows
from gradloc.data.probes.spacing import join

__all__ = [
    "DEPTHS",
    "GROUPS",
    "SPLITS",
    "Probe",
    "ProbeSet",
    "join",
    "load_probes",
    "read_probe_rows",
]
