"""Which passage is trained on at which step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gradloc.errors import GradlocError
from gradloc.utils.names import did_you_mean

SCENARIOS = ("once", "duplicated", "paraphrased")


@dataclass(frozen=True)
class Fact:
    """What is to be learned, and the texts that say it.

    Args:
        name: Unique among the facts; the ``entity`` of the probes that ask for it.
        passages: The original first, then its paraphrases.
    """

    name: str
    passages: tuple[str, ...]


class Exposure(NamedTuple):
    """One passage in one training step.

    Args:
        step: The update, counted from 0, whose batch holds the passage.
        fact: Name of the fact.
        scenario: One of ``SCENARIOS``.
        text: The passage.
    """

    step: int
    fact: str
    scenario: str
    text: str


class InjectionSchedule:
    """Exposures of facts: once, the same text again and again, or a new wording each time.

    ``once`` facts are shown at the first injection step only; ``duplicated`` ones at every
    injection step with the same text; ``paraphrased`` ones at every injection step with another
    text, the original first.

    A batch of the paper's size takes all facts at once. For a small batch, ``spread`` distributes
    them: fact number j of each scenario has all its exposures ``j % spread`` steps later, so the
    distances between its exposures stay those of ``steps``.

    Args:
        facts: Scenario -> its facts. No fact may be in two scenarios.
        steps: Injection steps, counted from 0: the passage is in the batch of update ``t``, so it
            shows in the weights from step t + 1 on.
        spread: Over so many steps the facts of one injection step are distributed.

    Attributes:
        exposures: All exposures, in the order of their steps.

    Raises:
        GradlocError: Unknown scenario, no fact, a fact without text or in two scenarios, fewer
            passages than injection steps for a paraphrased fact, or no usable injection steps.

    Example:
        >>> facts = {"duplicated": [Fact("Ada", ("Ada weaves.",))]}
        >>> [exposure.step for exposure in InjectionSchedule(facts, steps=[2, 5]).exposures]
        [2, 5]

    References: Chang et al. 2024, arXiv:2406.11813, section 3.2.
    """

    def __init__(
        self, facts: Mapping[str, Sequence[Fact]], steps: Sequence[int], *, spread: int = 1
    ):
        self.facts = {scenario: tuple(members) for scenario, members in facts.items()}
        self.steps = tuple(int(step) for step in steps)
        self.spread = spread
        problems = [*self._problems_of_steps(), *self._problems_of_facts()]
        if problems:
            raise GradlocError("injection schedule:\n  " + "\n  ".join(problems))
        self.exposures: tuple[Exposure, ...] = tuple(
            sorted(self._exposures(), key=lambda exposure: exposure.step)
        )

    @property
    def last_step(self) -> int:
        """Step of the last exposure."""
        return self.exposures[-1].step

    def steps_of_facts(self) -> dict[str, tuple[int, ...]]:
        """Fact -> the steps of its exposures, ascending."""
        found: dict[str, tuple[int, ...]] = {}
        for exposure in self.exposures:
            found[exposure.fact] = (*found.get(exposure.fact, ()), exposure.step)
        return found

    def scenarios_of_facts(self) -> dict[str, str]:
        """Fact -> its scenario."""
        return {fact.name: name for name, members in self.facts.items() for fact in members}

    def _exposures(self):
        for scenario, members in self.facts.items():
            steps = self.steps[:1] if scenario == "once" else self.steps
            for number, fact in enumerate(members):
                for turn, step in enumerate(steps):
                    text = fact.passages[turn if scenario == "paraphrased" else 0]
                    yield Exposure(step + number % self.spread, fact.name, scenario, text)

    def _problems_of_steps(self):
        if not self.steps:
            yield "steps: is empty; give the training steps at which passages are injected."
        elif self.steps[0] < 0 or any(
            after <= before for before, after in zip(self.steps, self.steps[1:], strict=False)
        ):
            yield f"steps: {list(self.steps)} must ascend from 0 or later, each step once."
        if self.spread < 1:
            yield f"spread: {self.spread} must be 1 or more; 1 shows all facts at once."

    def _problems_of_facts(self):
        if not any(self.facts.values()):
            yield "facts: there are none; give at least one fact."
        seen: dict[str, str] = {}
        for scenario, members in self.facts.items():
            if scenario not in SCENARIOS:
                yield f"scenario {scenario!r} is unknown. {did_you_mean(scenario, SCENARIOS)}"
            for fact in members:
                if fact.name in seen:
                    yield (
                        f"fact {fact.name!r} is in scenario {seen[fact.name]!r} and in "
                        f"{scenario!r}; each fact belongs to one."
                    )
                seen[fact.name] = scenario
                needed = len(self.steps) if scenario == "paraphrased" else 1
                if len(fact.passages) < needed:
                    yield (
                        f"fact {fact.name!r} ({scenario}) needs {needed} passages, one for each "
                        f"injection step, and has {len(fact.passages)}; give more wordings or "
                        "fewer steps."
                    )
