"""Choose how much of each unit's change stays: the uptake, at the least disturbance."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.optimize import brentq
from torch import Tensor, nn
from tqdm.auto import tqdm

from evaluation.studies.merge_by_unit.drawing import (
    entity_of,
    probe_sequences,
    split_probes,
    text_sides,
)
from evaluation.studies.merge_by_unit.path import MergePath
from evaluation.studies.merge_by_unit.scales import least_cost_scales, shrunk_second_moment
from evaluation.studies.merge_by_unit.solution import MergeSolution
from evaluation.studies.merge_by_unit.target import lowest_target
from gradloc.data.probes import ProbeSet
from gradloc.errors import ModelError
from gradloc.evaluation.bootstrap import estimate, interval
from gradloc.localization.gradients.sequences import Sequence, predicting_positions
from gradloc.localization.plan import LayerPlan
from gradloc.training.merging import Checkpoint

# Points on the line from base to tuned at which slopes are taken.
N_NODES = 3
# assumption: gains that miss the true difference by more rank units by something else.
LARGEST_GAIN_ERROR = 0.1


def solve_merge(
    base: nn.Module,
    tuned: Mapping[str, Tensor] | str | Path,
    probes: ProbeSet,
    reference: list[str],
    tokenizer,
    *,
    min_uptake: float = 0.95,
    granularity: Literal["sublayer", "block"] = "sublayer",
    n_probes: int = 24,
    n_reference: int = 24,
    max_length: int = 128,
    seed: int = 0,
    progress: bool | None = None,
) -> MergeSolution:
    """Find the scale of each unit's change that keeps the uptake and disturbs least.

    Let D_u = tuned_u - base_u, and let the merged model be base_u + a_u D_u. Solved is::

        minimise a' C a   subject to   sum_u a_u b_u >= min_uptake * sum_u b_u,   0 <= a_u <= 1

    - b_u = - integral over t of <grad L(base + t D), D_u>, L the span loss of the probes: what
      unit u adds to the uptake on the way from base to tuned. The b_u add up to the whole
      difference of the loss (but for the error of the Gauss-Legendre quadrature).
    - C_uv = mean over reference texts of T <g, D_u> <g, D_v>, with T labelled tokens and g the
      gradient of the text's mean loss at the base under labels that the base draws. Then
      a' C a / 2 is KL(base || merged) per token to second order. Its off-diagonal is shrunk
      against noise (``shrunk_second_moment``).

    The share kept is then measured by the true loss, on other localisation probes than those
    solved on. It differs from the predicted one: units act together, and the solution prefers
    units whose gain came out high by chance. So the target is moved, by bisection, to the lowest
    that keeps ``min_uptake``. Probes marked ``evaluation`` are never seen. The control is the one
    scale for all units that keeps as much.

    Args:
        base: The base model; it is given back bit for bit. Memory: three times its weights.
        tuned: Folder of the tuned safetensors weights, or parameter name -> tensor.
        probes: Probes on what was learned, without those that evaluate; invariant ones are left
            out as well.
        reference: Texts whose behaviour is to be kept; half of those drawn are solved on, the
            other half measures.
        tokenizer: The model's fast tokenizer.
        min_uptake: Share of the uptake to keep at least, above 0 and up to 1.
        granularity: ``sublayer`` or ``block``.
        n_probes: Probes solved on at most, and as many of other entities to measure on. With
            a single entity, its probes do both.
        n_reference: Texts solved on at most, and as many again to measure on.
        max_length: Tokens a sequence at most.
        seed: Which probes, texts and labels are drawn.
        progress: Show a progress bar; ``None``: when on a terminal.

    Returns:
        The solution; ``solution.plan`` goes to ``merge_checkpoints``.

    Raises:
        MeasurementError: No probe or no text is left, or a slope is not finite.
        ModelError: ``min_uptake`` is out of range, the checkpoints do not fit, or tuning
            did not lower the loss on the probes, so that there is nothing to keep.
        SpanError: An answer cannot be aligned with tokens.
        UnitsError: The model's units cannot be found.

    References:
        The gains are integrated gradients of the loss in the weights: Sundararajan et al. 2017,
        arXiv:1703.01365, section 3 (completeness: Proposition 1). The cost is the Fisher form of
        the KL divergence: Martens 2020, arXiv:1412.1193; Fisher-weighted merging:
        Matena and Raffel 2022, arXiv:2111.09832. The program is this project's.

    Example:
        >>> solution = solve_merge(model, "tuned", probes, texts, tokenizer)  # doctest: +SKIP
        >>> merge_checkpoints("base", "tuned", solution.plan, "merged")  # doctest: +SKIP
    """
    if not 0 < min_uptake <= 1:
        raise ModelError(f"min_uptake {min_uptake}: give a share above 0, at most 1.")
    device = next(base.parameters()).device
    sides = split_probes(probes, n_probes, seed)
    probes_solved, asked = (probe_sequences(tokenizer, side, max_length, device) for side in sides)
    solved_on, measured_on = text_sides(tokenizer, reference, n_reference, max_length, seed, device)
    tuned = Checkpoint(Path(tuned)) if isinstance(tuned, (str, Path)) else tuned
    path = MergePath(base, tuned, granularity)
    losses = {"base": path.loss(0.0, asked), "tuned": path.loss(1.0, asked)}
    drop = losses["base"] - losses["tuned"]
    solved_drop = path.loss(0.0, probes_solved) - path.loss(1.0, probes_solved)
    if not drop > 0:
        raise ModelError(
            f"the tuned checkpoint does not lower the loss on the {len(asked)} probes "
            f"({losses['base']:.3f} nats before, {losses['tuned']:.3f} after), so there is no "
            "uptake to keep. Are these the probes of the facts that it was tuned on?"
        )
    gains, cost, shrinkage = _measured(path, probes_solved, solved_on, seed, progress)
    if not gains.sum() > 0:
        raise ModelError(
            f"the gains along the path add up to {gains.sum():.3f} nats, where the loss of the "
            f"{len(probes_solved)} probes solved on falls by {solved_drop:.3f}. Give more probes."
        )

    def share(scales: float | np.ndarray) -> float:
        return (losses["base"] - path.loss(scales, asked)) / drop

    scales, target, kept, warnings = lowest_target(
        lambda target: _scales(path, gains, cost, target), share, min_uptake, gains
    )
    uniform = _uniform_scale(share, kept)
    points = {"tuned": 1.0, "merged": scales, "uniform": uniform}
    kept_low, kept_high = _kept_interval(path, scales, asked, [entity_of(p) for p in sides[1]])
    divergences = path.divergences(points, measured_on)
    gain_error = (gains.sum() - solved_drop) / solved_drop if solved_drop else float("inf")
    warnings += _remarks(gain_error, divergences, uniform)
    options = {"min_uptake": min_uptake, "seed": seed, "max_length": max_length}
    return MergeSolution(
        plan=_plan(path, scales, gains, granularity=granularity, options=options),
        min_uptake=min_uptake,
        target=target,
        kept=kept,
        kept_low=kept_low,
        kept_high=kept_high,
        uniform_scale=uniform,
        probe_loss_nats={
            **losses,
            "merged": losses["base"] - kept * drop,
            "uniform": path.loss(uniform, asked),
        },
        reference_loss_nats={
            name: path.loss(point, measured_on) for name, point in {"base": 0.0, **points}.items()
        },
        reference_kl_nats={"predicted": float(scales @ cost @ scales) / 2, **divergences},
        gain_error=float(gain_error),
        shrinkage=shrinkage,
        counts={
            "probes_solved_on": len(probes_solved),
            "probes_measured_on": len(asked),
            "texts_solved_on": len(solved_on),
            "texts_measured_on": len(measured_on),
        },
        warnings=tuple(warnings),
    )


def _measured(
    path: MergePath,
    probes: list[Sequence],
    texts: list[Sequence],
    seed: int,
    progress: bool | None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Gains of the units, cost of their changes, and its shrinkage."""
    n_steps = N_NODES * len(probes) + len(texts)
    disable = None if progress is None else not progress
    with tqdm(total=n_steps, desc="slopes", unit="seq", disable=disable) as bar:
        gains = _gains(path, probes, N_NODES, bar.update)
        return gains, *_cost(path, texts, seed, bar.update)


def _gains(
    path: MergePath, asked: list[Sequence], n_nodes: int, advance: Callable[[float], object]
) -> np.ndarray:
    """What each unit's change takes off the probes' mean loss, in nats, (n_units,)."""
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    total = np.zeros(len(path.units))
    # The rule is for -1 ... 1; the path runs from 0 to 1.
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        total -= weight * path.slopes(node, asked, advance).mean(axis=0)
    return total


def _cost(
    path: MergePath, texts: list[Sequence], seed: int, advance: Callable[[float], object]
) -> tuple[np.ndarray, float]:
    """The quadratic form whose half is the KL divergence, (n_units, n_units), and its shrinkage.

    With drawn labels the scores of a text's tokens are uncorrelated, so the mean over tokens of
    their squares is T times the square of their mean.
    """
    slopes = path.slopes(0.0, path.redrawn(texts, seed), advance)
    lengths = np.array([len(predicting_positions(text)) for text in texts])
    return shrunk_second_moment(slopes * np.sqrt(lengths)[:, None])


def _scales(path: MergePath, gains: np.ndarray, cost: np.ndarray, target: float) -> np.ndarray:
    """Scales that buy a share of the gains; 0 for units that tuning did not change."""
    scales = np.zeros(len(gains))
    changed = np.flatnonzero(path.is_changed)
    gains = gains / gains.sum()
    scales[changed] = least_cost_scales(gains[changed], cost[np.ix_(changed, changed)], target)
    return scales


def _kept_interval(
    path: MergePath, scales: np.ndarray, asked: list[Sequence], entities: list[str]
) -> tuple[float | None, float | None]:
    """95 % bootstrap interval of the share kept, entities being resampled."""
    if len(set(entities)) < 2:
        return None, None
    base, tuned, merged = (path.losses(point, asked) for point in (0.0, 1.0, scales))
    kept, whole = (found.replicates for found in estimate([base - merged, base - tuned], entities))
    # Where tuning gained nothing on the entities drawn, there is no share.
    return interval((kept / whole)[whole > 0])


def _uniform_scale(share: Callable[[float], float], kept: float) -> float:
    """The one scale for all units that keeps as much; 1 where the solution keeps it all."""
    if kept >= 1:
        return 1.0
    found = brentq(lambda t: share(t) - kept, 0.0, 1.0, xtol=2e-3, maxiter=10, disp=False)
    return float(found)  # type: ignore[arg-type] - scipy gives a pair with full_output only


def _plan(path: MergePath, scales: np.ndarray, gains: np.ndarray, **how: Any) -> LayerPlan:
    names = [unit.name for unit in path.units]
    return LayerPlan(
        scale=dict(zip(names, map(float, scales), strict=True)),
        units=tuple(unit.info for unit in path.units),
        policy="merge_solve",
        **how,
        model=getattr(path.model.config, "_name_or_path", ""),
        score_name="share of the uptake",
        scores=dict(zip(names, map(float, gains / gains.sum()), strict=True)),
    )


def _remarks(gain_error: float, divergences: dict[str, float], uniform: float) -> list[str]:
    remarks = []
    if abs(gain_error) > LARGEST_GAIN_ERROR:
        remarks.append(
            f"the units' gains miss the true loss difference by {gain_error:+.0%}, so the "
            "scales may be far from the best."
        )
    if divergences["uniform"] < divergences["merged"]:
        remarks.append(
            f"the uniform scale {uniform:.2f} keeps as much and disturbs less "
            f"({divergences['uniform']:.4f} against {divergences['merged']:.4f} nats per token): "
            "use it instead."
        )
    return remarks
