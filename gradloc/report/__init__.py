"""The report of a run: one self-contained page, and the model card of a checkpoint.

Comes in: the files of a run folder. Goes out: ``report.html`` and ``README.md``. Nothing is
measured here; a figure that the page shows stands in ``results.json``.
"""

from gradloc.report.page import save_pictures, write_report

__all__ = ["save_pictures", "write_report"]
