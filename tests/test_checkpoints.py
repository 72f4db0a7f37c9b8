import json

import pytest

from gradloc.models import load_model
from gradloc.models.checkpoints import saved_checkpoints, series_and_step


@pytest.fixture
def run(tmp_path):
    for step in (5, 40, 100):
        (tmp_path / "run" / f"checkpoint-{step}").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-best").mkdir()
    return tmp_path / "run"


def test_checkpoints_come_in_the_order_of_their_steps(run):
    assert [path.name for path in saved_checkpoints(run)] == [
        "checkpoint-5", "checkpoint-40", "checkpoint-100",
    ]  # fmt: skip


@pytest.mark.parametrize(("final", "is_kept"), [(120, True), (100, False)])
def test_the_final_model_follows_unless_it_is_the_last_checkpoint(
    run, tiny_checkpoint, final, is_kept
):
    load_model(tiny_checkpoint).save_pretrained(run)
    (run / "training.json").write_text(json.dumps({"n_steps": final}))
    assert (saved_checkpoints(run)[-1] == run) == is_kept
    assert series_and_step(run) == ("run", final)


def test_anything_else_stands_for_itself(tmp_path, tiny_checkpoint):
    assert saved_checkpoints(tiny_checkpoint) == [tiny_checkpoint]
    assert saved_checkpoints("owner/model") == ["owner/model"]
    assert series_and_step(tiny_checkpoint) == ("", None)
    assert series_and_step("owner/model") == ("", None)
