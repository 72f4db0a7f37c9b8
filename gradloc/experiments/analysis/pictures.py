"""The pictures of an acquisition analysis.

Comes in: an ``AcquisitionAnalysis``. Goes out: one ``Picture`` a scenario for learning, one a
depth for what each exposure adds and for what is kept. A scenario has one color in all of them.
"""

import math

import altair as alt

from gradloc.experiments.analysis.dynamics import AcquisitionAnalysis, GroupDynamics
from gradloc.experiments.analysis.looks import (
    CONTROL,
    RULE,
    by_depth,
    color_channel,
    colors,
    dash_channel,
    depth_title,
    ends,
    figure_text,
    log_ticks,
    shape_channel,
    slug,
)
from gradloc.report.formatting import number
from gradloc.report.pictures import Picture, fill_spec


def learning_pictures(analysis: AcquisitionAnalysis) -> list[Picture]:
    """Mean gain over training steps, one picture a scenario, one line a depth."""
    shown = colors(analysis)
    values = [v for group in analysis.groups for v in (*group.curve, *group.control_curve)]
    room = 0.05 * (max(values) - min(values) or 1.0)
    domain = [min(0.0, *values) - room, max(values) + room]
    return [
        _learning(scenario, color, [g for g in analysis.groups if g.scenario == scenario], domain)
        for scenario, color in shown.items()
    ]


def effectivity_pictures(analysis: AcquisitionAnalysis) -> list[Picture]:
    """What each exposure adds, one picture a depth; none where all facts are shown once."""
    if max(len(group.effectivity) for group in analysis.groups) < 2:
        return []
    return [
        _effectivity(depth, groups, colors(analysis))
        for depth, groups in by_depth(analysis).items()
    ]


def retention_pictures(analysis: AcquisitionAnalysis) -> list[Picture]:
    """Retainability over the logarithm of the steps, with the fitted lines, one a depth."""
    if len(analysis.times) < 2:
        return []
    return [
        _retention(depth, groups, analysis.times, colors(analysis))
        for depth, groups in by_depth(analysis).items()
    ]


def _learning(
    scenario: str, color: str, groups: list[GroupDynamics], domain: list[float]
) -> Picture:
    rows = [
        {"depth": group.depth, "step": step, "gain": gain}
        for group in groups
        for step, gain in zip(group.curve_steps, group.curve, strict=True)
    ]
    control = [
        {"depth": group.depth, "step": step, "gain": gain}
        for group in groups
        for step, gain in zip(group.curve_steps, group.control_curve, strict=False)
    ]
    x = alt.X(
        "step:Q", title="Steps since a fact’s first injection",
        axis=alt.Axis(tickCount=6, grid=False, format="~s"),
        scale=alt.Scale(nice=False, domain=[rows[0]["step"], rows[-1]["step"]]),
    )  # fmt: skip
    y = alt.Y(
        "gain:Q", title="log-probability gained, nats per token",
        scale=alt.Scale(domain=domain, nice=False), axis=alt.Axis(tickCount=5),
    )  # fmt: skip
    tips = [
        alt.Tooltip("depth:N"),
        alt.Tooltip("step:Q"),
        alt.Tooltip("gain:Q", title="nats gained", format=".3f"),
    ]
    marks = [{"step": step} for step in groups[0].injections]
    layers = [
        alt.Chart(alt.Data(values=marks))
        .mark_rule(color="var(--muted)", strokeWidth=1, strokeDash=[2, 3])
        .encode(x),
        alt.Chart(alt.Data(values=[{"gain": 0}])).mark_rule(**RULE, opacity=0.6).encode(y),
    ]
    if control:
        layers.append(
            alt.Chart(alt.Data(values=control))
            .mark_line(strokeWidth=1.5, color="var(--reference)")
            .encode(x, y, strokeDash=dash_channel(rows), detail="depth:N")
        )
    lines = alt.Chart(alt.Data(values=rows))
    layers += [
        lines.mark_line(strokeWidth=2, color=color).encode(x, y, strokeDash=dash_channel(rows)),
        # Invisible points answer the pointer wherever a line runs.
        lines.mark_point(size=80, opacity=0, filled=True).encode(x, y, tooltip=tips),
    ]
    n = groups[0].n_entities
    described = "; ".join(
        f"{group.depth}: at most {number(max(group.curve))}, {number(group.curve[-1])} at the end"
        for group in groups
    )
    columns = ["Steps", *(group.depth for group in groups)]
    columns += [f"{group.depth}, {CONTROL}" for group in groups if group.control_curve]
    series = [group.curve for group in groups]
    series += [group.control_curve for group in groups if group.control_curve]
    return Picture(
        key=f"learning-{slug(scenario)}",
        title=f"{scenario.capitalize()}, {n} facts",
        description=(
            f"Mean gain of the answers' log-probability over training steps for facts that were "
            f"injected {scenario}, one line for each depth; dotted lines mark injections. "
            f"{described}."
        ),
        spec=fill_spec(alt.layer(*layers).properties(height=260)),
        columns=tuple(columns),
        rows=tuple(
            (number(step), *(number(line[place]) for line in series))
            for place, step in enumerate(groups[0].curve_steps)
        ),
        direction="↑ higher is better known",
    )


def _effectivity(depth: str, groups: list[GroupDynamics], shown: dict[str, str]) -> Picture:
    # Side by side, so that none hides another.
    rows = [
        {
            "scenario": group.scenario,
            "exposure": place + 1,
            "x": place + 1 + 0.12 * (turn - (len(groups) - 1) / 2),
            **ends(found),
        }
        for turn, group in enumerate(groups)
        for place, found in enumerate(group.effectivity)
        if found.value is not None
    ]
    x = alt.X(
        "x:Q", title="Exposure",
        axis=alt.Axis(grid=False, format="d", values=sorted({row["exposure"] for row in rows})),
        scale=alt.Scale(nice=False, padding=14),
    )  # fmt: skip
    y = alt.Y("value:Q", title="nats per token gained", axis=alt.Axis(tickCount=5))
    color, shape = color_channel(rows, shown), shape_channel(rows)
    base = alt.Chart(alt.Data(values=rows))
    tips = [
        alt.Tooltip("scenario:N"),
        alt.Tooltip("exposure:Q"),
        alt.Tooltip("text:N", title="gain"),
    ]
    layers = [
        base.mark_line(strokeWidth=1.5, opacity=0.7).encode(x, y, color=color),
        base.mark_rule(strokeWidth=1.5, opacity=0.55).encode(
            x, alt.Y("low:Q"), alt.Y2("high:Q"), color=color
        ),
        base.mark_point(filled=True, size=80, opacity=1, stroke="var(--paper)").encode(
            x, y, color=color, shape=shape, tooltip=tips
        ),
    ]
    n_exposures = max(len(group.effectivity) for group in groups)
    described = "; ".join(
        f"{group.scenario} {figure_text(group.effectivity[0])} at the first exposure"
        + (f", {figure_text(group.effectivity[-1])} at the last" if group.effectivity[1:] else "")
        for group in groups
    )
    return Picture(
        key=f"effectivity-{depth}",
        title=depth_title(depth),
        description=(
            f"What each exposure adds to the log-probability of {depth} answers, in nats per "
            f"token, one line for each scenario: {described}."
        ),
        spec=fill_spec(alt.layer(*layers).properties(height=230)),
        columns=("Exposure", *(group.scenario for group in groups)),
        rows=tuple(
            (
                str(place + 1),
                *(
                    figure_text(group.effectivity[place]) if place < len(group.effectivity) else ""
                    for group in groups
                ),
            )
            for place in range(n_exposures)
        ),
        direction="↑ higher is better",
    )


def _retention(
    depth: str, groups: list[GroupDynamics], times: tuple[int, ...], shown: dict[str, str]
) -> Picture:
    rows = [
        {"scenario": group.scenario, "t": t, **ends(found)}
        for group in groups
        for t, found in zip(times, group.retainability, strict=True)
        if t > 0 and found.value is not None
    ]
    lines = [
        {
            "scenario": group.scenario,
            "t": t,
            "value": 100 * (group.decay.intercept + group.decay.slope * math.log10(t)),
        }
        for group in groups
        if math.isfinite(group.decay.slope)
        for t in (times[1], times[-1])
    ]
    x = alt.X(
        "t:Q", title="Steps since the local acquisition maximum (logarithmic)",
        scale=alt.Scale(type="log", domain=[times[1], times[-1]], nice=False, padding=8),
        axis=alt.Axis(grid=False, values=log_ticks(times[1], times[-1]), format=",d"),
    )  # fmt: skip
    # Wide bands are cut off: the axis is for the means and their fits.
    seen = [0.0, 100.0, *(row["value"] for row in (*rows, *lines))]
    room = 0.06 * (max(seen) - min(seen))
    y = alt.Y(
        "value:Q", title="Retainability, %", axis=alt.Axis(tickCount=6),
        scale=alt.Scale(domain=[min(seen) - room, max(seen) + room], nice=False),
    )  # fmt: skip
    color, shape = color_channel(rows, shown), shape_channel(rows)
    base = alt.Chart(alt.Data(values=rows))
    tips = [alt.Tooltip("scenario:N"), alt.Tooltip("t:Q", title="steps"),
            alt.Tooltip("text:N", title="kept")]  # fmt: skip
    layers = [
        alt.Chart(alt.Data(values=[{"value": 0}])).mark_rule(**RULE, opacity=0.6).encode(y),
        base.mark_area(opacity=0.13, clip=True).encode(
            x, alt.Y("low:Q"), alt.Y2("high:Q"), alt.Color(**color.to_dict())
        ),
        base.mark_point(filled=True, size=42, opacity=0.85).encode(
            x, y, color=color, shape=shape, tooltip=tips
        ),
        alt.Chart(alt.Data(values=lines))
        .mark_line(strokeWidth=2, strokeDash=[5, 4])
        .encode(x, y, color=color),
    ]
    described = "; ".join(
        f"{group.scenario} {figure_text(group.retainability[-1])} % after {times[-1]} steps, "
        f"decay constant {number(group.decay.decay_constant)}"
        for group in groups
    )
    return Picture(
        key=f"retention-{depth}",
        title=depth_title(depth),
        description=(
            f"Retainability of {depth} answers over the logarithm of the steps since their last "
            f"local acquisition maximum, one series and its fitted line for each scenario: "
            f"{described}."
        ),
        spec=fill_spec(alt.layer(*layers).properties(height=300)),
        columns=("Steps", *(f"{g.scenario} {end}" for g in groups for end in ("%", "left out"))),
        rows=tuple(
            (
                f"{t:,}",
                *(
                    cell
                    for group in groups
                    for cell in (
                        figure_text(group.retainability[place]),
                        str(group.n_outliers[place]),
                    )
                ),
            )
            for place, t in enumerate(times)
        ),
        direction="↑ higher is better",
    )
