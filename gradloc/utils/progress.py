"""A progress bar over sequences."""

from collections.abc import Callable

from tqdm.auto import tqdm


class SequenceBar:
    """A progress bar over sequences that takes fractional steps.

    Args:
        total: Sequences in all stages together.
        progress: Whether to show it; ``None``: when on a terminal.
    """

    def __init__(self, total: int, progress: bool | None):
        disable = None if progress is None else not progress
        self._bar = tqdm(
            total=total,
            disable=disable,
            desc="measure",
            unit="seq",
            bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} [{elapsed}<{remaining}]",
        )

    def __enter__(self) -> "SequenceBar":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def stage(self, name: str) -> Callable[[float], object]:
        """Begin a stage; the function that is given back counts sequences, in fractions too."""
        self._bar.set_description(name, refresh=False)
        return self._bar.update
