"""What happened along a training, from its record or from the scores of its stages.

Comes in: ``acquisition.json`` of a training, or ``results.json`` of checkpoints in order. Goes
out: figures with intervals, tables and one self-contained page. It runs no model.
"""

from gradloc.analysis.acquisition import AcquisitionAnalysis, analyse_acquisition
from gradloc.analysis.stages import StageAnalysis, analyse_stages

__all__ = ["AcquisitionAnalysis", "StageAnalysis", "analyse_acquisition", "analyse_stages"]
