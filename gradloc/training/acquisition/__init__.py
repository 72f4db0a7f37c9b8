"""Each probe's loss all along a training: the record, and the callback that writes it.

The callback is imported when first asked for, so that reading a record loads no model library.
"""

from gradloc.training.acquisition.record import RECORD_FILE, AcquisitionRecord

__all__ = ["RECORD_FILE", "AcquisitionCallback", "AcquisitionRecord"]


def __getattr__(name: str):
    if name == "AcquisitionCallback":
        from gradloc.training.acquisition.callback import AcquisitionCallback

        return AcquisitionCallback
    raise AttributeError(f"module 'gradloc.training.acquisition' has no attribute {name!r}")
