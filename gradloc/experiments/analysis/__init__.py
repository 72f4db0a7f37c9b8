"""What happened along a training: acquisition of single facts, and transfer between stages."""

from gradloc.experiments.analysis.acquisition import AcquisitionAnalysis, analyse_acquisition
from gradloc.experiments.analysis.stages import StageAnalysis, analyse_stages

__all__ = ["AcquisitionAnalysis", "StageAnalysis", "analyse_acquisition", "analyse_stages"]
