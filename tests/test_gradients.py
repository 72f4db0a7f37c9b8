import copy

import numpy as np
import pytest
import torch
from conftest import build_model
from peft import LoraConfig, get_peft_model

import gradloc.localization.gradients.measure
import gradloc.localization.gradients.one_at_a_time
from gradloc import GradientProfile, GradlocError, measure_gradients
from gradloc.errors import MeasurementError
from gradloc.models.units import find_units

LENGTHS = (9, 5, 12, 7)


def make_rows(seed=0, spans=True):
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for length in LENGTHS:
        ids = torch.randint(3, 97, (length,), generator=generator)
        labels = ids.clone()
        if spans:
            labels[: length - 3] = -100
        rows.append((ids, labels))
    return rows


def pad(rows, side="right", batch_size=4):
    batches = []
    for start in range(0, len(rows), batch_size):
        chunk = rows[start : start + batch_size]
        width = max(len(ids) for ids, _ in chunk)
        batch = {key: [] for key in ("input_ids", "attention_mask", "labels")}
        for ids, labels in chunk:
            n = width - len(ids)
            amount = (0, n) if side == "right" else (n, 0)
            fill = torch.nn.functional.pad
            batch["input_ids"].append(fill(ids, amount, value=0))
            batch["labels"].append(fill(labels, amount, value=-100))
            batch["attention_mask"].append(fill(torch.ones_like(ids), amount, value=0))
        batches.append({key: torch.stack(value) for key, value in batch.items()})
    return batches


PROBES, REFERENCE = make_rows(0), make_rows(1, spans=False)


def oracle_gradients(model, rows):
    """One sequence at a time, through the model's own loss: unit name -> (n, n_parameters)."""
    units = find_units(model)
    result = {unit.name: [] for unit in units}
    for ids, labels in rows:
        model.zero_grad()
        model(input_ids=ids[None], labels=labels[None]).loss.backward()
        for unit in units:
            result[unit.name].append(
                torch.cat([p.grad.flatten() for p in unit.parameters.values()])
            )
    model.zero_grad()
    return {name: torch.stack(value) for name, value in result.items()}


def assert_matches_oracle(profile, probe, reference):
    for index, name in enumerate(profile.names):
        g, r = probe[name].double(), reference[name].double()
        sign = torch.sign(g.float().mean(0)).double()
        expected = {
            "probe_norms": g.norm(dim=1),
            "reference_norms": r.norm(dim=1),
            "probe_alignment": g @ sign,
            "reference_alignment": r @ sign,
        }
        for key, values in expected.items():
            scale = max(values.abs().max().item(), 1e-12)
            got = getattr(profile, key)[:, index]
            assert np.abs(got - values.numpy()).max() / scale < 1e-5, (name, key)
        assert profile.benefit[index] == pytest.approx(g.mean(0).abs().sum().item(), rel=1e-5)
        assert profile.interference[index] == pytest.approx(
            ((r @ sign) ** 2).mean().item(), rel=1e-4
        )


def test_equals_the_one_at_a_time_oracle(any_model):
    profile = measure_gradients(any_model, pad(PROBES), reference=pad(REFERENCE))
    assert_matches_oracle(
        profile, oracle_gradients(any_model, PROBES), oracle_gradients(any_model, REFERENCE)
    )


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_padding_side_and_batching_do_not_matter(llama, side, batch_size):
    whole = measure_gradients(llama, pad(PROBES), reference=pad(REFERENCE))
    other = measure_gradients(
        llama, pad(PROBES, side, batch_size), reference=pad(REFERENCE, side, batch_size)
    )
    np.testing.assert_array_equal(whole.probe_norms, other.probe_norms)
    np.testing.assert_array_equal(whole.reference_alignment, other.reference_alignment)


def test_rows_without_padding_are_measured_as_batches_are(llama):
    rows = [{"input_ids": ids.tolist(), "labels": labels.tolist()} for ids, labels in PROBES]
    whole, other = measure_gradients(llama, pad(PROBES)), measure_gradients(llama, rows)
    np.testing.assert_array_equal(whole.probe_norms, other.probe_norms)


def test_order_only_permutes_the_rows(llama):
    first = measure_gradients(llama, pad(PROBES), reference=pad(REFERENCE))
    second = measure_gradients(llama, pad(PROBES[::-1]), reference=pad(REFERENCE[::-1]))
    np.testing.assert_allclose(first.probe_norms, second.probe_norms[::-1], rtol=1e-6)
    np.testing.assert_allclose(first.benefit, second.benefit, rtol=1e-5)


def test_a_small_buffer_gives_the_same_directions_in_more_passes(llama, monkeypatch):
    whole = measure_gradients(llama, pad(PROBES), reference=pad(REFERENCE))
    monkeypatch.setattr(gradloc.localization.gradients.measure, "BUFFER_BYTES", 5000)
    chunked = measure_gradients(llama, pad(PROBES), reference=pad(REFERENCE))
    np.testing.assert_allclose(whole.probe_alignment, chunked.probe_alignment, rtol=1e-6)


def test_both_reductions(llama):
    profile = measure_gradients(
        llama, pad(PROBES), reference=pad(REFERENCE), reduction="norm_of_mean"
    )
    probe, reference = oracle_gradients(llama, PROBES), oracle_gradients(llama, REFERENCE)
    of_mean = [probe[n].mean(0).norm() / reference[n].mean(0).norm() for n in profile.names]
    mean_of = [probe[n].norm(dim=1).mean() / reference[n].norm(dim=1).mean() for n in profile.names]
    np.testing.assert_allclose(profile.rgn, of_mean, rtol=1e-4)
    assert not np.allclose(of_mean, mean_of, rtol=1e-2)
    profile = measure_gradients(llama, pad(PROBES), reference=pad(REFERENCE))
    np.testing.assert_allclose(profile.rgn, mean_of, rtol=1e-5)


def test_blocks_are_the_root_of_the_summed_squares_of_their_sublayers(llama):
    fine = measure_gradients(llama, pad(PROBES))
    coarse = measure_gradients(llama, pad(PROBES), granularity="block")
    for index, unit in enumerate(coarse.units):
        inside = [
            i
            for i, u in enumerate(fine.units)
            if u.name == unit.name or (u.block is not None and u.block == unit.block)
        ]
        np.testing.assert_allclose(
            coarse.probe_norms[:, index],
            np.sqrt((fine.probe_norms[:, inside] ** 2).sum(1)),
            rtol=1e-6,
        )


def test_peft_wrapping_and_frozen_inputs_change_nothing_measured():
    plain = measure_gradients(build_model("llama"), pad(PROBES), reference=pad(REFERENCE))
    lora = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=True)
    wrapped = get_peft_model(build_model("llama"), lora)
    got = measure_gradients(wrapped, pad(PROBES), reference=pad(REFERENCE))
    assert got.names == plain.names
    np.testing.assert_allclose(got.probe_norms, plain.probe_norms, rtol=1e-5)
    np.testing.assert_allclose(
        got.reference_alignment, plain.reference_alignment, rtol=1e-3, atol=1e-4
    )


def test_bfloat16_follows_float32(llama):
    exact = measure_gradients(llama, pad(PROBES), reference=pad(REFERENCE))
    rough = measure_gradients(
        copy.deepcopy(llama).to(torch.bfloat16), pad(PROBES), reference=pad(REFERENCE)
    )
    assert rough.dtype == "bfloat16"
    np.testing.assert_allclose(rough.probe_norm, exact.probe_norm, rtol=0.05)


def test_the_model_is_left_bit_for_bit_as_found():
    model = build_model("gpt2").train()
    model.transformer.wte.weight.requires_grad_(False)
    kept = torch.ones_like(model.transformer.ln_f.weight)
    model.transformer.ln_f.weight.grad = kept
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    random_state = torch.get_rng_state()
    measure_gradients(model, pad(PROBES), reference=pad(REFERENCE))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert model.transformer.ln_f.weight.grad is kept
    assert sum(p.grad is not None for p in model.parameters()) == 1
    assert model.training
    assert torch.equal(torch.get_rng_state(), random_state)


def test_one_at_a_time_at_most_one_gradient_is_alive(llama, monkeypatch):
    alive = []
    real = gradloc.localization.gradients.one_at_a_time.dot

    def spy(left, right):
        alive.append(sum(p.grad is not None for p in llama.parameters()))
        return real(left, right)

    monkeypatch.setattr(
        gradloc.localization.gradients.measure.per_sample,
        "unknown_parameters",
        lambda *args: ["planted"],
    )
    monkeypatch.setattr(gradloc.localization.gradients.one_at_a_time, "dot", spy)
    measure_gradients(llama, pad(PROBES))
    assert max(alive) == 1


def test_a_nan_gradient_names_unit_and_sequence(llama):
    with torch.no_grad():
        llama.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(MeasurementError, match=r"unit .* on probe sequence 0"):
        measure_gradients(llama, pad(PROBES))


def test_bad_batches_are_refused(llama):
    with pytest.raises(MeasurementError, match="no probe sequences"):
        measure_gradients(llama, [])
    unlabelled = [{"input_ids": torch.ones(1, 4).long(), "labels": torch.full((1, 4), -100)}]
    with pytest.raises(MeasurementError, match="probe sequence 0 has no labelled token"):
        measure_gradients(llama, unlabelled)
    with pytest.raises(MeasurementError, match="no labels"):
        measure_gradients(llama, [{"input_ids": torch.ones(1, 4).long()}])
    with pytest.raises(MeasurementError, match="reduction 'mean'"):
        measure_gradients(llama, pad(PROBES), reduction="mean")


def test_profile_file_gives_the_profile_back(llama, tmp_path):
    profile = measure_gradients(llama, pad(PROBES), reference=pad(REFERENCE))
    again = GradientProfile.load(profile.save(tmp_path / "profile.json"))
    assert again.units == profile.units
    np.testing.assert_array_equal(again.probe_norms, profile.probe_norms)
    np.testing.assert_array_equal(again.interference_ratio, profile.interference_ratio)
    assert again.shape == profile.shape


def test_without_reference_only_raw_norms_are_there(llama, tmp_path):
    profile = measure_gradients(llama, pad(PROBES))
    assert profile.probe_norm.shape == (len(profile.units),)
    with pytest.raises(GradlocError, match="measured without reference text"):
        _ = profile.rgn
    again = GradientProfile.load(profile.save(tmp_path / "profile.json"))
    assert again.reference_norms is None
