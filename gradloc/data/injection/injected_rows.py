"""Token rows in the order of training steps, with passages in front of some."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradloc.data.injection.injection_schedule import InjectionSchedule
from gradloc.errors import GradlocError

COLUMNS = ("input_ids", "labels", "attention_mask")


def rows_per_step(args: Any) -> int:
    """Rows that one update reads: batch of a process x accumulation x processes.

    Args:
        args: ``transformers.TrainingArguments``.
    """
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


class InjectedRows:
    """Ordinary rows with the schedule's passages in front, laid out in the order of the updates.

    With R rows an update (``rows_per_step``), update t reads rows t * R to t * R + R - 1: the
    Trainer's sequential order gives them to it whatever the batch size, the accumulation and the
    number of processes. The passages of update t stand in the first of these rows, one a row:
    passage + end token + the ordinary row, cut to the length of that row.

    The ordinary rows are read in an order that is shuffled with ``args.data_seed`` (else
    ``args.seed``), anew for each pass over them. A row in which a passage was put counts as read.

    Args:
        schedule: What is injected when.
        rows: Ordinary rows with a length and an index: ``input_ids`` and, where there are any,
            ``labels`` and ``attention_mask``.
        args: The ``TrainingArguments`` of the run.
        tokenizer: Makes the passages' tokens.

    Raises:
        GradlocError: The passages cannot be at the schedule's steps; every reason is named.
    """

    def __init__(self, schedule: InjectionSchedule, rows: Sequence, args: Any, tokenizer: Any):
        problems = [*_problems_of_arguments(schedule, args), *_problems_of_rows(rows)]
        if problems:
            raise _impossible(problems)
        self._rows = rows
        self._n_rows = len(rows)
        self._per_step = rows_per_step(args)
        self._n_steps = args.max_steps
        self._seed = args.seed if args.data_seed is None else args.data_seed
        self._orders: dict[int, np.ndarray] = {}
        self._injected = self._put_passages(schedule, tokenizer)

    def __len__(self) -> int:
        return self._n_steps * self._per_step

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._injected.get(index) or self._ordinary(index)

    def _ordinary(self, index: int) -> dict[str, list[int]]:
        turn, place = divmod(index, self._n_rows)
        if turn not in self._orders:
            order = np.random.default_rng([self._seed, turn]).permutation(self._n_rows)
            self._orders = {turn: order}  # earlier passes are not read again
        return dict(self._rows[int(self._orders[turn][place])])

    def _put_passages(self, schedule: InjectionSchedule, tokenizer) -> dict[int, dict]:
        found: dict[int, dict] = {}
        problems: list[str] = []
        n_at: dict[int, int] = {}
        # Whole words in, tokens out: one call is many times faster than one a passage.
        texts = list(dict.fromkeys(exposure.text for exposure in schedule.exposures))
        tokens = dict(zip(texts, tokenizer(texts, verbose=False)["input_ids"], strict=True))
        for exposure in schedule.exposures:
            slot = n_at.get(exposure.step, 0)
            n_at[exposure.step] = slot + 1
            index = exposure.step * self._per_step + slot
            row = self._ordinary(index)
            passage = list(tokens[exposure.text])
            if len(passage) > len(row["input_ids"]):
                problems.append(
                    f"a passage of {exposure.fact!r} has {len(passage)} tokens, and the row it "
                    f"would stand in {len(row['input_ids'])}; take longer rows, or shorter passages"
                )
            found[index] = _prepend(passage, row, tokenizer.eos_token_id)
        if problems:
            raise _impossible(list(dict.fromkeys(problems)))
        return found


def _prepend(passage: list[int], row: dict[str, list[int]], eos: int | None) -> dict:
    """The passage, an end token and as much of the row as then fits."""
    # Some tokenizers put the end token themselves.
    front = passage if eos is None or passage[-1:] == [eos] else [*passage, eos]
    length = len(row["input_ids"])
    fronts = {"input_ids": front, "labels": front, "attention_mask": [1] * len(front)}
    return {name: [*fronts[name], *column][:length] for name, column in row.items()}


def _problems_of_arguments(schedule: InjectionSchedule, args: Any):
    if args.max_steps <= 0:
        yield "max_steps is not set; the number of updates must be known, so set it"
    elif args.max_steps <= schedule.last_step:
        yield (
            f"the last passage is due at step {schedule.last_step}, but training ends after "
            f"{args.max_steps} updates; raise max_steps or inject earlier"
        )
    strategy = getattr(args, "train_sampling_strategy", "random")
    if strategy != "sequential":
        yield (
            f"train_sampling_strategy is {strategy!r}, which reads the rows in another order; set "
            "it to 'sequential' (the rows are shuffled already)"
        )
    if args.ignore_data_skip:
        yield (
            "ignore_data_skip is set, so a resumed run would begin with the first rows again; "
            "remove it"
        )
    if args.auto_find_batch_size:
        yield "auto_find_batch_size may change the batch size while training; remove it"
    if args.accelerator_config.split_batches and args.world_size > 1:
        yield "accelerator_config.split_batches changes how many rows an update reads; remove it"
    per_step = rows_per_step(args)
    n_at_step = Counter(exposure.step for exposure in schedule.exposures)
    step, n_due = n_at_step.most_common(1)[0]
    if n_due > per_step:
        total = sum(len(members) for members in schedule.facts.values())
        yield (
            f"{n_due} passages are due at step {step}, and an update reads {per_step} rows; "
            f"spread the {total} facts over more steps (spread={schedule.spread} now), or raise "
            "the batch size or gradient_accumulation_steps"
        )


def _problems_of_rows(rows: Sequence):
    if not hasattr(rows, "__len__") or not hasattr(rows, "__getitem__"):
        yield (
            "the ordinary rows are a stream, in which no step has a place; give a data set with "
            "a length"
        )
    elif not len(rows):
        yield "there are no ordinary rows; give some text to train on"
    elif "input_ids" not in rows[0]:
        yield f"the ordinary rows have no input_ids, only {', '.join(rows[0])}; tokenize them first"
    elif unknown := [name for name in rows[0] if name not in COLUMNS]:
        yield (
            f"the ordinary rows have columns that a passage has not: {', '.join(unknown)}; keep "
            f"only {', '.join(COLUMNS)}"
        )


def _impossible(problems: list[str]) -> GradlocError:
    return GradlocError("passages cannot be injected:\n  " + "\n  ".join(problems) + ".")
