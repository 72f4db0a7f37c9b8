"""A few probes to show, with what every model writes after them."""

from collections import Counter
from collections.abc import Mapping, Sequence

from gradloc.data.probes import Probe
from gradloc.evaluation.results import Example
from gradloc.evaluation.score_record import CheckpointScores


def choose_examples(
    probes: Sequence[Probe], n: int, exact: Sequence[bool] | None = None
) -> tuple[str, ...]:
    """Ids of a few probes to show, the same for the same input.

    Turn by turn an updated fact, a new one (paraphrased, where there is such) and an invariant
    one that the model has right, each of another entity, spread over the whole list.

    Args:
        probes: The probes.
        n: How many.
        exact: Whether the model has each probe right; ``None``: all count as right.

    Example:
        >>> make = lambda i, group: Probe(f"{group}{i}", group, "x", ("y",), entity=str(i))
        >>> choose_examples([make(i, g) for g in ("new", "invariant") for i in range(9)], 4)
        ('new0', 'new4', 'invariant0', 'invariant4')
    """
    right = exact if exact is not None else [True] * len(probes)
    pools: dict[str, list[Probe]] = {"updated": [], "new": [], "invariant": []}
    for probe, is_right in zip(probes, right, strict=True):
        if probe.group != "invariant" or is_right:
            pools[probe.group].append(probe)
    pools["new"] = [p for p in pools["new"] if p.depth == "paraphrase"] or pools["new"]
    for group, pool in pools.items():
        first_of_entity = {probe.entity or probe.id: probe for probe in reversed(pool)}
        pools[group] = [p for p in pool if first_of_entity[p.entity or p.id] is p]
    turns = [group for turn in range(n) for group, pool in pools.items() if turn < len(pool)]
    share = Counter(turns[:n])
    return tuple(
        pool[number * len(pool) // share[group]].id
        for group, pool in pools.items()
        for number in range(share[group])
    )


def shown_examples(
    probes: Sequence[Probe], systems: Mapping[str, CheckpointScores]
) -> tuple[Example, ...]:
    """The probes that were chosen, with every system's own answer."""
    by_id = {probe.id: probe for probe in probes}
    return tuple(
        Example(
            prompt=probe.prompt,
            target=probe.targets[0],
            old_target=next(iter(probe.old_targets), ""),
            group=probe.group,
            answers={
                name: scores.answers[probe.id]
                for name, scores in systems.items()
                if probe.id in scores.answers
            },
        )
        for probe in map(by_id.__getitem__, next(iter(systems.values())).answers)
    )
