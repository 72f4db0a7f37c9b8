"""The picture of uptake against forgetting."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from gradloc.evaluation.results import MetricValue
from gradloc.report.charts import Picture, arm_channels, drawn_ends, fill_spec, tooltips
from gradloc.report.formatting import capitalize, figure_text, is_finite, unit_name
from gradloc.report.metric_names import metric_label
from gradloc.report.styles import ArmStyle
from gradloc.report.table import figure_cell, make_table


class Model(NamedTuple):
    """One model in the picture of uptake against forgetting.

    Args:
        arm: Its arm.
        style: How it looks.
        uptake: What it learned.
        forgetting: What it lost.
        detail: What tells it from others of its arm: its rate or step.
        curve: Name of the curve through it; empty for none.
        is_on_curve: Whether the curve runs through it; else it is hollow.
    """

    arm: str
    style: ArmStyle
    uptake: MetricValue
    forgetting: MetricValue
    detail: str = ""
    curve: str = ""
    is_on_curve: bool = True


def tradeoff_picture(
    key: str, title: str, models: Sequence[Model], uptake: str, forgetting: str
) -> Picture | None:
    """Uptake (up) against forgetting (right), with the curves that join models.

    Args:
        key: Unique name within the page.
        title: Heading.
        models: The models; those without both figures are in the table alone.
        uptake: Key of the metric of uptake.
        forgetting: Key of the metric of forgetting.

    Returns:
        The picture; ``None`` where no model has both figures.
    """
    drawn = [m for m in models if is_finite(m.uptake.value) and is_finite(m.forgetting.value)]
    if not drawn:
        return None
    x_unit = unit_name(drawn[0].forgetting.unit, difference=True)
    y_unit = unit_name(drawn[0].uptake.unit, difference=True)
    titles = (
        f"Forgetting: {metric_label(forgetting)}, {x_unit} lost",
        f"Uptake: {metric_label(uptake)}, {y_unit} gained",
    )
    described = "; ".join(
        f"{m.arm}{' at ' * bool(m.detail)}{m.detail}: uptake {figure_text(m.uptake)}, forgetting "
        f"{figure_text(m.forgetting)}"
        for m in drawn
    )
    return Picture(
        key=key,
        title=title,
        description=f"Uptake against forgetting on {metric_label(forgetting)}, one point for each "
        f"model; up and to the left is better. {described}.",
        spec=_spec(drawn, titles),
        table=make_table(
            ["Arm", "Trained at", titles[1], titles[0], "On its curve"],
            [
                [m.arm, m.detail, figure_cell(m.uptake), figure_cell(m.forgetting),
                 "yes" if m.curve and m.is_on_curve else ""]
                for m in models
            ],
        ),
        direction="↖ better: more learned, less lost",
    )  # fmt: skip


def loss_title(forgetting: str) -> str:
    """Heading of a picture about one measure of forgetting."""
    return capitalize(metric_label(forgetting))


def _model_row(model: Model) -> dict[str, Any]:
    return {
        "arm": model.style.name, "name": model.arm, "detail": model.detail, "curve": model.curve,
        "on_curve": not model.curve or model.is_on_curve, "quiet": model.style.is_quiet,
        "reference": model.style.is_reference,
        "uptake": figure_text(model.uptake), "forgetting": figure_text(model.forgetting),
        **drawn_ends(model.forgetting, "x", "x_low", "x_high"),
        **drawn_ends(model.uptake, "y", "y_low", "y_high"),
    }  # fmt: skip


def _spec(models: Sequence[Model], titles: tuple[str, str]) -> dict[str, Any]:
    rows = [_model_row(model) for model in models]
    groups = {
        "quiet": [row for row in rows if row["quiet"]],
        "full": [row for row in rows if row["reference"]],
        "arms": [row for row in rows if not row["quiet"] and not row["reference"]],
    }
    curves = zip(("quiet_curves", "full_curves", "arm_curves"), groups.values(), strict=True)
    # Points off the curves may lie far out: the curves decide what is seen of them.
    seen = [row for row in rows if row["on_curve"]] or rows
    channels = arm_channels({model.style.name: model.style for model in models})
    return fill_spec(
        "tradeoff",
        height=360,
        origin=[{"x": 0, "y": 0, "name": "base model"}],
        x=_axis("x", titles[0], seen, 5),
        y=_axis("y", titles[1], seen, 6),
        filled={"test": "datum.on_curve", **channels["color"]},
        tips=tooltips(name="arm", detail="at", uptake="uptake", forgetting="forgetting"),
        **groups,
        **{name: _corners(own) for name, own in curves},
        **channels,
    )


def _corners(rows: list[dict]) -> list[dict]:
    """Corners of the curves, each from the base model, in the order of the uptake."""
    corners = []
    for curve in dict.fromkeys(row["curve"] for row in rows if row["curve"]):
        own = [row for row in rows if row["curve"] == curve and row["on_curve"]]
        if not own:
            continue
        places = [(0.0, 0.0), *sorted((row["y"], row["x"]) for row in own)]
        corners += [
            {"arm": own[0]["arm"], "curve": curve, "x": x, "y": y, "place": place}
            for place, (y, x) in enumerate(places)
        ]
    return corners


def _axis(field: str, title: str, rows: list[dict], n_ticks: int) -> dict[str, Any]:
    """An axis around the values and zero, with room for the marks."""
    ends = [0.0, *(row[f"{field}_{end}"] for row in rows for end in ("low", "high"))]
    room = (max(ends) - min(ends) or 1.0) * 0.08
    scale = {"domain": [min(ends) - room, max(ends) + room], "nice": False, "zero": False}
    axis = {"tickCount": n_ticks}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": axis}
