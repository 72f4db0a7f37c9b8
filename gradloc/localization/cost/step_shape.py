"""How a training step is set up, as far as its cost depends on it."""

from dataclasses import dataclass, field, replace

from gradloc.config.default import GradLocConfig
from gradloc.errors import GradlocError
from gradloc.localization.cost.machine import MACHINE, Machine
from gradloc.utils.numbers import check_number

# Sequence length and batch size that ratios are predicted for when nothing else is said.
SEQUENCE_LENGTH = 128
BATCH_SIZE = 8
# Old text that passes at a time: the shipped passages on facts, 8 at every fourth step by default.
KL_LENGTH = 49
KL_BATCH_SIZE = 8
DEFAULT_KL_TOKENS = KL_LENGTH * KL_BATCH_SIZE / GradLocConfig.kl_every

# Bytes of one number; gradients and Adam's moments have the type of the weights.
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class StepShape:
    """What one step of training is like.

    Args:
        sequence_length: Tokens a sequence, padding included.
        batch_size: Sequences that pass through the model at a time.
        cached: Hidden states that enter the lowest trained block are read from a cache
            (``gradloc.models.prefix_cache``), so the blocks below it do not run.
        label_loss: Head and loss are computed at labelled positions only, in chunks
            (``gradloc.models.label_loss``); else by the model's own loss, at all positions.
        labelled_fraction: Labelled positions / all positions, 0-1; matters with ``label_loss``.
        projected: Steps are projected (``gradloc.training.methods.input_projection``) and a copy
            of the start is held for the interpolation (``gradloc.training.methods.interpolation``).
        kl_tokens: Tokens of old text a step, on average, whose KL to the base is added
            (``gradloc.training.methods.reference_kl``).
        dtype: Type of weights and activations: a key of ``DTYPE_BYTES``.
        machine: How fast the machine computes and moves bytes.

    Raises:
        GradlocError: A value out of range.
    """

    sequence_length: int = SEQUENCE_LENGTH
    batch_size: int = BATCH_SIZE
    cached: bool = False
    label_loss: bool = False
    labelled_fraction: float = 1.0
    projected: bool = False
    kl_tokens: float = 0.0
    dtype: str = "float32"
    machine: Machine = field(default=MACHINE)

    def __post_init__(self):
        for name in ("sequence_length", "batch_size"):
            check_number(name, getattr(self, name), 1, whole=True)
        check_number("labelled_fraction", self.labelled_fraction, 0, 1, above=True)
        check_number("kl_tokens", self.kl_tokens, 0)
        if self.dtype not in DTYPE_BYTES:
            raise GradlocError(f"dtype {self.dtype!r}: choose one of {', '.join(DTYPE_BYTES)}.")

    @property
    def n_tokens(self) -> int:
        """Tokens a step."""
        return self.sequence_length * self.batch_size

    @property
    def kl_pass(self) -> "StepShape":
        """The pass over old text when it comes: by the whole model, with whole logits."""
        lengths = {"sequence_length": KL_LENGTH, "batch_size": KL_BATCH_SIZE}
        return replace(self.plain, **lengths)

    @property
    def plain(self) -> "StepShape":
        """The same batch by the plain Trainer, nothing saved or added."""
        return replace(self, cached=False, label_loss=False, projected=False, kl_tokens=0.0)

    @property
    def bytes_each(self) -> int:
        """Bytes of one number."""
        return DTYPE_BYTES[self.dtype]
