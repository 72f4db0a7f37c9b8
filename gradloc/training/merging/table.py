"""What ``gradloc merge --solve`` prints."""

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from gradloc.training.merging.solution import MergeSolution


def solution_table(solution: MergeSolution) -> Group:
    """The solution beside base, tuned and the uniform control, and how the scales fell out."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("probe loss ↓", "uptake kept ↑", "reference KL ↓", "reference loss ↓"):
        unit = "share" if "kept" in name else "nats per token"
        table.add_column(f"{name}\n[dim]{unit}[/dim]", justify="right")
    labels = {
        "base": "base",
        "tuned": "tuned",
        "merged": "merged",
        "uniform": f"uniform {solution.uniform_scale:.2f}",
    }
    probe = solution.probe_loss_nats
    interval = ""
    if solution.kept_low is not None and solution.kept_high is not None:
        interval = f" [{solution.kept_low:.0%}, {solution.kept_high:.0%}]"
    for name, label in labels.items():
        kept = (probe["base"] - probe[name]) / (probe["base"] - probe["tuned"])
        table.add_row(
            label,
            f"{probe[name]:.3f}",
            f"{kept:.1%}" + (interval if name == "merged" else ""),
            f"{solution.reference_kl_nats.get(name, 0.0):.4f}",
            f"{solution.reference_loss_nats[name]:.4f}",
        )
    return Group(table, *map(Text, _lines(solution)), *_warnings(solution))


def _lines(solution: MergeSolution) -> list[str]:
    scales = [solution.plan.scale[name] for name, share in solution.plan.scores.items() if share]
    whole = sum(scale > 0.99 for scale in scales)
    none = sum(scale < 0.01 for scale in scales)
    counts = solution.counts
    return [
        f"of {len(scales)} changed units, {whole} are kept whole, {none} are undone, "
        f"{len(scales) - whole - none} lie between",
        f"solved on {counts['probes_solved_on']} probes and {counts['texts_solved_on']} texts, "
        f"measured on {counts['probes_measured_on']} and {counts['texts_measured_on']} others",
        "95 % interval over entities in brackets; judge the result with gradloc evaluate",
    ]


def _warnings(solution: MergeSolution) -> list[Text]:
    return [Text(f"warning: {text}", style="bold yellow") for text in solution.warnings]
