"""What happened along a training, and where in a model new facts pull.

Comes in: ``acquisition.json`` of a training, ``results.json`` of checkpoints in order, or a model
with probes of all groups. Goes out: figures with intervals, tables and one self-contained page.
Only ``localization_measure`` runs a model.
"""

from gradloc.experiments.analysis.acquisition import AcquisitionAnalysis, analyse_acquisition
from gradloc.experiments.analysis.stages import StageAnalysis, analyse_stages

__all__ = ["AcquisitionAnalysis", "StageAnalysis", "analyse_acquisition", "analyse_stages"]
