"""What a benchmark is asked to do.

Comes in: the options of the command. Goes out: ``BenchSettings``, which travels to the processes
that measure memory. It runs nothing.
"""

from dataclasses import asdict, dataclass

from gradloc.errors import GradlocError

LORA_RANK = 16


@dataclass(frozen=True)
class BenchSettings:
    """Sizes and counts of a benchmark; the same for all arms.

    Args:
        model: Name of the model, as for ``load_model``.
        cache_dir: Folder for the caches of the cached arms.
        arms: Names of the arms; empty: the default ones.
        k: Whole blocks that the arms ``top``, ``middle``, ``scattered`` and ``bottom`` train.
        batch_size: Sequences a step.
        sequence_length: Tokens a sequence; all of them are labelled.
        dtype: Type of the weights in all arms.
        rotations: How often each arm takes its turn; the intervals are over these.
        steps: Timed steps of an arm in each rotation.
        warmup_steps: Steps before them that are not timed; Adam makes its state in the first.
        memory_repeats: How often each arm's peak memory is measured; 0: not at all.
        seed: Seed of the token ids, of the order of the arms and of what arms draw.
        plan: A plan of the user's, as its JSON values, for the arms ``plan``.
    """

    model: str
    cache_dir: str
    arms: tuple[str, ...] = ()
    k: int = 4
    batch_size: int = 8
    sequence_length: int = 128
    dtype: str = "float32"
    rotations: int = 5
    steps: int = 3
    warmup_steps: int = 1
    memory_repeats: int = 2
    seed: int = 0
    plan: dict | None = None

    def __post_init__(self):
        object.__setattr__(self, "arms", tuple(self.arms))  # a list, from JSON
        counts = ("k", "batch_size", "rotations", "steps", "warmup_steps")
        low = [name for name in counts if getattr(self, name) < 1]
        low += ["sequence_length"] if self.sequence_length < 2 else []
        low += ["memory_repeats"] if self.memory_repeats < 0 else []
        if low:
            found = ", ".join(f"{name} = {getattr(self, name)}" for name in low)
            raise GradlocError(f"bench: too small: {found}.")

    @property
    def steps_a_run(self) -> int:
        """Steps of an arm in each rotation, warm-up included; also one pass over the rows."""
        return self.warmup_steps + self.steps

    def to_dict(self) -> dict:
        """Plain JSON values."""
        return asdict(self)
