"""The named failures of gradloc."""


class GradlocError(Exception):
    """Base class of every error that gradloc raises on purpose.

    The command line prints these without a traceback and exits with code 2.
    """


class ProblemsError(GradlocError):
    """Several problems of one input, reported together.

    Args:
        source: The file or object that was read.
        problems: One line for each problem, in the form ``key: what; cure``.
    """

    def __init__(self, source: object, problems: list[str]):
        self.source = str(source)
        self.problems = tuple(problems)
        count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
        super().__init__("\n".join([f"{source}: {count}", *(f"  {line}" for line in problems)]))


class FileError(GradlocError):
    """A file is missing, damaged, or not UTF-8 text."""


class RecipeError(ProblemsError):
    """A recipe has unknown keys, wrong types or values that cannot work together."""


class SuiteError(ProblemsError):
    """An evaluation suite has unknown keys, wrong types or missing files."""


class ProbeError(ProblemsError):
    """A probe file breaks the probe schema (missing target, duplicate id, unknown group)."""


class CorpusError(GradlocError):
    """A corpus cannot be read, is empty, or has nothing on one side of its cut-off."""


class SpanError(GradlocError):
    """A salient span lies outside its text, or no token covers it."""


class ModelError(GradlocError):
    """A model or tokenizer cannot be found, loaded or used."""


class UnitsError(GradlocError):
    """The model has no unique stack of blocks, so its layers cannot be named."""


class MeasurementError(GradlocError):
    """Gradients cannot be measured: no labels, or a gradient that is not finite."""


class SelectionError(GradlocError):
    """A policy is unknown, lacks what it needs in the profile, or would train nothing."""


class MethodError(GradlocError):
    """A training method has an option out of range, or cannot be combined as asked."""


class PlanMismatchError(GradlocError):
    """A layer plan names other units, or other sizes, than the model or checkpoint has."""


class FrozenParametersChangedError(GradlocError):
    """A parameter that the plan froze is no longer equal, bit for bit, to what it was."""


class CacheError(GradlocError):
    """A frozen prefix cannot be cached: nothing lies below, it is trained, or it has dropout."""


class RunError(GradlocError):
    """A run folder cannot be used: it belongs to another recipe, or a stage is missing."""
