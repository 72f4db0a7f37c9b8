"""Probes: prompts with gold answers, and the text that they make together."""

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
