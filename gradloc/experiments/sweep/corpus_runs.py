"""The runs of one corpus, and the means of their scores with replicates that all arms share."""

from collections.abc import Sequence

from gradloc.errors import GradlocError
from gradloc.evaluation.bootstrap import N_BOOTSTRAP, BootstrapEstimate, estimate_over_seeds
from gradloc.evaluation.score_record import ItemScores, item_sums
from gradloc.experiments.sweep.sweep_record import RunRecord


class CorpusRuns:
    """The runs of one corpus, and their estimates from shared draws.

    Args:
        runs: Runs of one corpus; at least one.
        n_bootstrap: Number of resamples.
        seed: Seed of the draws.

    Raises:
        GradlocError: Two runs are the same arm, rate and seed, or the arms of one seed were not
            measured on the same items, so that they cannot be paired.
    """

    def __init__(self, runs: Sequence[RunRecord], *, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0):
        self.corpus = runs[0].corpus
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

    @property
    def metrics(self) -> dict[str, ItemScores]:
        """Metric -> scores of some run, which say its kind and unit."""
        return {name: scores for run in self.runs.values() for name, scores in run.metrics.items()}

    def of_arm(self, arm: str) -> list[RunRecord]:
        """The runs of an arm, by rate and seed."""
        return sorted(
            (run for run in self.runs.values() if run.arm == arm),
            key=lambda run: (run.learning_rate, run.seed),
        )

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

    def _resample(
        self, metric: str, seeds: tuple[int, ...]
    ) -> dict[tuple[str, float], BootstrapEstimate]:
        keys = [
            key
            for key in dict.fromkeys((arm, rate) for arm, rate, _ in self.runs)
            if all(self._has(metric, (*key, seed)) for seed in seeds)
        ]
        if not keys or not seeds:
            return {}
        sums = {
            seed: item_sums([self.runs[(*key, seed)].metrics[metric] for key in keys])
            for seed in seeds
        }
        found = estimate_over_seeds(
            sums, f"{self.corpus}/{metric}", n_bootstrap=self.n_bootstrap, seed=self.seed
        )
        return dict(zip(keys, found, strict=True))

    def _has(self, metric: str, key: tuple[str, float, int]) -> bool:
        return key in self.runs and metric in self.runs[key].metrics

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
