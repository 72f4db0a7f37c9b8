"""Records of sweeps with known frontiers: forgetting = c * uptake ** 2, and noise."""

import numpy as np

from gradloc.evaluation.score_record import ItemScores
from gradloc.experiments.sweep.sweep_record import RunRecord, SweepRecord

RATES = (1e-5, 3e-5, 1e-4)
# Mean uptake at these rates, and c of forgetting = c * uptake ** 2.
UPTAKES = {"full": (1.0, 2.0, 4.0), "half": (1.0, 2.0, 4.0), "worse": (1.0, 2.0, 4.0),
           "small": (0.5, 1.0, 2.0), "chance": (0.8, 1.5, 3.2)}  # fmt: skip
CONSTANTS = {"full": 0.1, "half": 0.05, "worse": 0.2, "small": 0.025, "chance": 0.1}
POLICIES = {"full": "all", "chance": "random_k"}
AXIS = "new_paraphrase_nll"
LOSSES = {"known_facts": "fraction", "known_facts_nll": "nats", "general_text": "nats/token"}
N_ENTITIES, N_TEXTS = 40, 30


def make_record(
    *, corpora=("invented",), arms=tuple(UPTAKES), seeds=(0, 1, 2), noise=0.2, draw=0,
    seed_effect=0.1, losses=tuple(LOSSES),
):  # fmt: skip
    """A finished sweep.

    ``noise`` scales what arms share (entities, texts) and a fifth as much of their own; 0: every
    mean is exact.
    """
    runs = []
    for place, corpus in enumerate(corpora):
        for seed in seeds:
            rng = np.random.default_rng([draw, place, seed])
            world = 1 + seed_effect * noise * rng.standard_normal()
            shared = {name: rng.standard_normal(n) for name, n in
                      ((AXIS, 2 * N_ENTITIES), *((loss, N_TEXTS) for loss in losses))}  # fmt: skip
            weights = tuple(rng.integers(50, 200, N_TEXTS).tolist())
            for arm in arms:
                for rate, uptake in zip(RATES, UPTAKES[arm], strict=True):
                    own = np.random.default_rng([draw, place, seed, hash_of(arm), int(rate * 1e6)])

                    def values(name, mean, scale, own=own, shared=shared):
                        n = len(shared[name])
                        spread = shared[name] + 0.2 * own.standard_normal(n)
                        return tuple((mean + noise * scale * spread).tolist())

                    forgotten = CONSTANTS[arm] * (uptake * world) ** 2
                    metrics = {
                        AXIS: ItemScores(
                            "uptake", "nats", values(AXIS, uptake * world, 1.0),
                            tuple(i // 2 for i in range(2 * N_ENTITIES)),
                        )
                    }  # fmt: skip
                    for loss in losses:
                        metrics[loss] = ItemScores(
                            "forgetting", LOSSES[loss], values(loss, forgotten, 0.3),
                            None, weights if loss == "general_text" else None,
                        )  # fmt: skip
                    runs.append(RunRecord(
                        corpus, arm, POLICIES.get(arm, "interference_ratio"), {}, rate, seed,
                        train_seconds=100.0 if arm == "full" else 40.0 + seed,
                        peak_rss_mib=3000.0 if arm == "full" else 1500.0,
                        trainable_fraction=1.0 if arm == "full" else 0.25,
                        n_trained=62 if arm == "full" else 10 + seed, n_units=62, metrics=metrics,
                    ))  # fmt: skip
    return SweepRecord(
        "synthetic", "full", AXIS, tuple(runs), "gradloc sweep synthetic.yaml",
        {"python": "3.11", "versions": {"torch": "2.8"}},
    )  # fmt: skip


def hash_of(name):
    """A number of its own for each name, the same in every process."""
    return sum(ord(letter) * 31**place for place, letter in enumerate(name)) % 2**31
