"""The script that measures how cost grows (evaluation/studies/growth.py), on the smallest sizes."""

import argparse
import json
import re

import growth
import pytest

from gradloc.errors import GradlocError
from gradloc.models import prefix_cache


def printed(capsys, command):
    growth.main(command.split())
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_steps_are_measured_at_the_sizes_asked_for_beside_what_is_predicted(capsys):
    command = "steps --blocks 6 3 --width 64 --length 32 16 --batch-size 2"
    options = " --turns 2 --steps 1 --memory-repeats 0 --seed 3"
    result = printed(capsys, command + options)
    found = result["steps"]
    sizes = {axis: [(r["blocks"], r["width"], r["length"]) for r in found[axis]] for axis in found}
    assert sizes == {
        "blocks": [(3, 64, 32), (6, 64, 32)],
        "width": [(6, 64, 32)],
        "length": [(6, 64, 16), (6, 64, 32)],
    }
    assert result["settings"]["seed"] == 3
    three, six = found["blocks"]
    block = 4 * 64**2 + 3 * 64 * 192 + 2 * 64
    assert six["n_parameters"] - three["n_parameters"] == 3 * block
    # A vocabulary this small leaves nearly all of the work to the blocks.
    assert 1.85 < six["predicted_time_growth"] < 2
    assert 1.8 < six["predicted_memory_growth"] < 2.05
    assert found["blocks"][1] == found["width"][0] | {
        key: six[key] for key in six if "growth" in key
    }, "the size in the middle of all axes is measured once"
    for row in (row for rows in found.values() for row in rows):
        for key in ("time_ratio", "time_growth"):
            assert 0 < row[key]["low"] <= row[key]["value"] <= row[key]["high"]
        assert 0 < row["predicted_time_ratio"] < 1 and 0 < row["predicted_memory_ratio"] < 1
    smallest = [rows[0] for rows in found.values()]
    assert all(row["time_growth"] == {"value": 1, "low": 1, "high": 1} for row in smallest)
    assert all(row["predicted_time_growth"] == 1 for row in smallest)


@pytest.mark.slow
def test_as_many_probes_and_texts_are_measured_as_it_says(capsys):
    given = argparse.Namespace(blocks=2, width=32, length=8, seed=0)
    model = growth.llama(2, 32, 8, 0)
    profile = growth.measure(model, 5, given)
    assert len(profile.probe_norms) == len(profile.reference_norms) == 5
    size = "--blocks 2 --width 32 --length 8"
    found = printed(capsys, f"probes --n 2 --turns 1 {size}")["probes"]
    (row,) = found["by_number"]
    assert row["n"] == 2 and row["to_smallest"]["value"] == 1
    assert row["seconds_per_probe"] > 0 and row["memory_mib"] > 0
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert found["weights_mib"] == pytest.approx(4 * parameters / 2**20, rel=1e-3)


def corpus(**changes):
    sizes = dict(blocks=3, width=64, length=64, seed=0, dtype="float32")
    return argparse.Namespace(**sizes | changes)


@pytest.mark.slow
def test_the_second_pass_runs_no_prefix(tmp_path, monkeypatch):
    calls, llama = [], growth.llama

    def counted(*sizes):
        model = llama(*sizes)
        model.model.layers[0].mlp.register_forward_hook(lambda *given: calls.append(1))
        return model

    monkeypatch.setattr(growth, "llama", counted)
    found = growth.fill_and_read(16_000, str(tmp_path), corpus())
    n_batches, n_plain = -(-(16_000 // 64) // growth.BATCH), growth.PLAIN_ROWS // growth.BATCH
    tried = 3  # PrefixCache tries the model on four tokens, twice as in training
    assert len(calls) == n_plain + tried + n_batches, "the prefix runs in the first pass alone"
    assert found["tokens"] == 16_000
    assert found["kept_mib"] == pytest.approx(16_000 * 64 * 4 / 2**20, rel=0.02)


@pytest.mark.slow
def test_no_pass_holds_the_corpus(capsys, tmp_path):
    """Four times the corpus, each in a process of its own: the heap of this one is full."""
    sizes = "--blocks 3 --width 64 --length 64 --tokens 160000 640000"
    small, large = printed(capsys, f"cache {sizes} --folder {tmp_path}")["cache"]
    assert large["kept_mib"] == pytest.approx(4 * small["kept_mib"], rel=0.02)
    for memory in ("first_pass_memory_mib", "second_pass_memory_mib"):
        assert large[memory] - small[memory] < (large["kept_mib"] - small["kept_mib"]) / 2


@pytest.mark.slow
def test_a_second_pass_that_had_to_compute_is_an_error(tmp_path, monkeypatch):
    def small(folder, dtype, max_gib):
        return prefix_cache.CacheConfig(folder, dtype, max_gib=1e-4)

    monkeypatch.setattr(growth, "CacheConfig", small)
    with pytest.raises(GradlocError, match="batches were found in the second pass"):
        growth.fill_and_read(4096, str(tmp_path), corpus())


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("steps --blocks 4", "--blocks must be multiples of 3"),
        ("probes --width 100", "--width must be a multiple of 32"),
        ("probes --n 0", "--n 0: 1 at least"),
        ("cache --tokens 100", "--tokens 100: 128 at least"),
        ("cache --folder absent", "absent: no such folder"),
        ("cache --tokens 1000000000000000", "tokens need .* MiB free. Choose another --folder"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(capsys, command, message):
    with pytest.raises(SystemExit) as error:
        growth.main(command.split())
    said = f"{error.value} {capsys.readouterr().err}"
    assert re.search(message, said)
