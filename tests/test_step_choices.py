"""What the docs say about bfloat16 and padding is measured on the same sequences."""

import pytest
import step_choices
from conftest import build_model
from test_prefix_cache import frozen

LENGTHS = (5, 12, 7, 16, 3, 9, 14, 4, 6, 15, 8, 11, 13, 10, 2, 16)


@pytest.fixture(scope="module")
def layouts():
    rows = [[7 * i + j + 3 for j in range(n)] for i, n in enumerate(LENGTHS)]
    rows = [[token % 97 for token in row] for row in rows]
    return step_choices.layouts([{"input_ids": r, "labels": list(r)} for r in rows], 2, 0)


def test_every_layout_holds_the_same_labels_and_only_padding_differs(layouts):
    n_labels = {n: sum(int((b["labels"] >= 0).sum()) for b in bs) for n, bs in layouts.items()}
    # Put end to end, a row's first token has no label: nothing before it predicts it.
    assert n_labels == {
        "padded": sum(LENGTHS),
        "grouped_by_length": sum(LENGTHS),
        "end_to_end": sum(LENGTHS) - len(LENGTHS),
    }
    n_tokens = {n: sum(b["input_ids"].numel() for b in bs) for n, bs in layouts.items()}
    assert n_tokens["end_to_end"] == sum(LENGTHS)
    assert sum(LENGTHS) < n_tokens["grouped_by_length"] < n_tokens["padded"]


def test_rows_put_end_to_end_do_not_see_each_other(layouts):
    model = frozen(build_model("llama")).train()
    for padded, flat in zip(layouts["padded"], layouts["end_to_end"], strict=True):
        loss, grads, _ = step_choices.step(model, padded)
        other_loss, other_grads, _ = step_choices.step(model, flat)
        assert other_loss == pytest.approx(loss, rel=1e-5)
        assert (grads - other_grads).norm() < 1e-4 * grads.norm()


def test_errors_are_those_of_the_parts_named(layouts):
    found = step_choices.errors(frozen(build_model("llama")).train(), layouts["padded"], 2)
    assert list(found) == ["prefix", "suffix", "head", "prefix head", "prefix suffix head"]
    assert all(0 < errors["gradient_relative"] < 0.05 for errors in found.values())
    without = step_choices.errors(frozen(build_model("llama")).train(), layouts["padded"], 0)
    assert list(without) == ["suffix", "head"]
