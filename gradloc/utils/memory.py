"""Peak memory of a stretch of work in this process."""

import ctypes
import gc
import threading
from pathlib import Path

import psutil

_MIB = 2**20
_SAMPLE_SECONDS = 0.02


class PeakMemory:
    """Peak resident memory while the block runs, ``.mib`` afterwards.

    On Linux the kernel's own high-water mark is reset and read, so no peak is missed; elsewhere
    the process is sampled every 20 ms.
    """

    mib: float = 0.0

    def __enter__(self) -> "PeakMemory":
        _give_back_free_memory()
        self._stop = threading.Event()
        self._sampler = None
        if not _reset_high_water_mark():
            self._sampler = threading.Thread(target=self._sample, daemon=True)
            self._sampler.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._sampler is None:
            self.mib = _high_water_mark() / _MIB
        else:
            self._stop.set()
            self._sampler.join()

    def _sample(self) -> None:
        process = psutil.Process()
        while True:
            self.mib = max(self.mib, process.memory_info().rss / _MIB)
            if self._stop.wait(_SAMPLE_SECONDS):
                return


def _give_back_free_memory() -> None:
    """Return freed memory to the system, so that earlier work is not counted."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):  # not glibc
        return


def _reset_high_water_mark() -> bool:
    try:
        # 5 resets VmHWM to the present resident size (man 5 proc).
        Path("/proc/self/clear_refs").write_text("5")
        return _high_water_mark() > 0
    except (OSError, ValueError):
        return False


def _high_water_mark() -> int:
    """VmHWM in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
