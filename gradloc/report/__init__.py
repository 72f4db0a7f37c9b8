"""Pages, tables and pictures of what was measured; nothing is computed here."""

from gradloc.report.run_page import write_report

__all__ = ["write_report"]
