"""Probes: prompts with gold answers, and the text that they make together.

Comes in: JSONL rows. Goes out: a ``ProbeSet``, and for each probe its text with the place of the
answer. It runs no model and knows no tokens (see ``gradloc.spans``).
"""

from gradloc.probes.collection import Probe, ProbeSet
from gradloc.probes.files import load_probes, read_probe_rows
from gradloc.probes.records import DEPTHS, GROUPS, SPLITS
from gradloc.probes.spacing import join

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
