"""Each probe's loss all along a training: the record, and the callback that writes it.

Comes in: probes, and a model in training. Goes out: ``acquisition.json``. What the losses mean is
``gradloc.metrics.acquisition``'s business. The callback is imported when first asked for, so that
reading a record loads no model library.
"""

from gradloc.acquisition.record import RECORD_FILE, AcquisitionRecord

__all__ = ["RECORD_FILE", "AcquisitionCallback", "AcquisitionRecord"]


def __getattr__(name: str):
    if name == "AcquisitionCallback":
        from gradloc.acquisition.callback import AcquisitionCallback

        return AcquisitionCallback
    raise AttributeError(f"module 'gradloc.acquisition' has no attribute {name!r}")
