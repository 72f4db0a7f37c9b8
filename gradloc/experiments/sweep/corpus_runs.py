"""The runs of one corpus: means of their scores with replicates that all arms share, and curves."""

from collections.abc import Sequence
from functools import cached_property

from gradloc.errors import GradlocError
from gradloc.evaluation.bootstrap import N_BOOTSTRAP, BootstrapEstimate, estimate_over_seeds
from gradloc.evaluation.matched_uptake import Point
from gradloc.evaluation.score_record import ItemScores, item_sums
from gradloc.experiments.sweep.frontier_curves import Curve, make_curve
from gradloc.experiments.sweep.sweep_record import RunRecord


class CorpusRuns:
    """The runs of one corpus, their estimates from shared draws and the arms' curves.

    Args:
        runs: Runs of one corpus; at least one.
        axis: The metric of uptake.
        n_bootstrap: Number of resamples.
        seed: Seed of the draws.

    Raises:
        GradlocError: Two runs are the same arm, rate and seed, or the arms of one seed were not
            measured on the same items, so that they cannot be paired.
    """

    def __init__(
        self, runs: Sequence[RunRecord], axis: str, *, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0
    ):
        self.corpus, self.axis = runs[0].corpus, axis
        self.runs = {(run.arm, run.learning_rate, run.seed): run for run in runs}
        self.n_bootstrap, self.seed = n_bootstrap, seed
        self._done: dict[tuple, dict[tuple[str, float], BootstrapEstimate]] = {}
        if len(self.runs) < len(runs):
            raise GradlocError(
                f"corpus {self.corpus}: {len(runs) - len(self.runs)} runs have the arm, rate "
                "and seed of another one. Keep one of each."
            )
        self._check_items()

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in the order of the record."""
        return tuple(dict.fromkeys(arm for arm, _, _ in self.runs))

    @cached_property
    def metrics(self) -> dict[str, ItemScores]:
        """Metric -> scores of some run, which say its kind and unit."""
        return {name: scores for run in self.runs.values() for name, scores in run.metrics.items()}

    def of_arm(self, arm: str) -> list[RunRecord]:
        """The runs of an arm, by rate and seed."""
        return [self.runs[key] for key in sorted(self.runs) if key[0] == arm]

    def rates(self, arm: str) -> tuple[float, ...]:
        """Learning rates of an arm, ascending."""
        return tuple(sorted({rate for name, rate, _ in self.runs if name == arm}))

    def shared_seeds(self, *arms: str) -> tuple[int, ...]:
        """Seeds that every rate of every one of these arms has."""
        wanted = [(arm, rate) for arm in arms for rate in self.rates(arm)]
        seeds = sorted({seed for _, _, seed in self.runs})
        return tuple(s for s in seeds if all((*key, s) in self.runs for key in wanted))

    def estimate(
        self, arm: str, rate: float, metric: str, seeds: tuple[int, ...]
    ) -> BootstrapEstimate | None:
        """Mean over seeds of an arm's (weighted) mean over items, and its replicates.

        Returns:
            ``None`` where a run of these seeds lacks the metric. The value is NaN where a score
            is not finite, as after weights have diverged.
        """
        asked = (metric, seeds)
        if asked not in self._done:
            self._done[asked] = self._resample(metric, seeds)
        return self._done[asked].get((arm, rate))

    def point(self, arm: str, rate: float, measure: str, seeds: tuple[int, ...]) -> Point | None:
        """Uptake of an arm at a rate, and what it forgets in a measure."""
        uptake = self.estimate(arm, rate, self.axis, seeds)
        forgotten = self.estimate(arm, rate, measure, seeds)
        return None if uptake is None or forgotten is None else Point(uptake, forgotten)

    def curve(self, arm: str, measure: str, seeds: tuple[int, ...]) -> Curve | None:
        """The curve of an arm; the axis itself stands in for forgetting where uptake is wanted."""
        points = {rate: self.point(arm, rate, measure, seeds) for rate in self.rates(arm)}
        return make_curve({rate: point for rate, point in points.items() if point is not None})

    def _resample(
        self, metric: str, seeds: tuple[int, ...]
    ) -> dict[tuple[str, float], BootstrapEstimate]:
        def scores(key: tuple[str, float], seed: int) -> ItemScores | None:
            run = self.runs.get((*key, seed))
            return run.metrics.get(metric) if run else None

        keys = dict.fromkeys((arm, rate) for arm, rate, _ in self.runs)
        found = {key: [scores(key, seed) for seed in seeds] for key in keys}
        whole = {key: own for key, own in found.items() if own and None not in own}
        if not whole:
            return {}
        sums = {
            seed: item_sums(systems) for seed, *systems in zip(seeds, *whole.values(), strict=True)
        }
        estimates = estimate_over_seeds(
            sums, f"{self.corpus}/{metric}", n_bootstrap=self.n_bootstrap, seed=self.seed
        )
        return dict(zip(whole, estimates, strict=True))

    def _check_items(self) -> None:
        """Arms of one seed must have been measured on the same items, or nothing is paired."""
        first: dict[tuple[int, str], tuple[str, tuple]] = {}
        for (arm, _, seed), run in self.runs.items():
            for name, scores in run.metrics.items():
                if not scores.values:
                    raise GradlocError(
                        f"corpus {self.corpus}, seed {seed}: {name} of arm {arm} has no items. "
                        "Leave the metric out where there is nothing to measure."
                    )
                other, same = first.setdefault((seed, name), (arm, scores.items))
                if scores.items != same:
                    raise GradlocError(
                        f"corpus {self.corpus}, seed {seed}: {name} was measured on other items "
                        f"for arm {arm} than for arm {other}, so they cannot be compared. Run "
                        "the runs of this seed again with one suite."
                    )
