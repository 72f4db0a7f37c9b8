"""The cost model against closed forms, counted products, saved tensors and measured steps."""

import copy
import math

import pytest
import torch
from conftest import CONFIGS
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, Qwen3MoeConfig
from transformers.pytorch_utils import Conv1D

from gradloc.errors import GradlocError
from gradloc.localization.cost.machine import Machine, calibrate
from gradloc.localization.cost.prediction import predict_cost
from gradloc.localization.cost.step_shape import DEFAULT_KL_TOKENS, StepShape
from gradloc.localization.cost.work import step_work
from gradloc.models.architecture import model_shape
from gradloc.models.unit_info import UnitInfo
from gradloc.models.units import find_units
from gradloc.training.methods.input_covariance import (
    input_covariance,
    input_projections,
    linear_modules,
)

D, F, KV, N_BLOCKS, VOCAB = 576, 1536, 192, 30, 49_152
SHAPE = {
    "n_blocks": N_BLOCKS,
    "hidden_size": D,
    "vocab_size": VOCAB,
    "query_size": D,
    "kv_size": KV,
    "ffn_size": F,
}
UNITS = (
    UnitInfo("embed", "embedding", None, VOCAB * D),
    *(
        UnitInfo(f"{i}.{kind}", kind, i, size)
        for i in range(N_BLOCKS)
        for kind, size in (("attention", 2 * D * D + 2 * D * KV), ("mlp", 3 * D * F))
    ),
    UnitInfo("norm", "norm", None, D),
)
TOP, MIDDLE, BOTTOM, SCATTERED = range(26, 30), range(13, 17), range(4), (3, 11, 19, 27)
# Chosen by the default policy for the quickstart's news.
DEFAULT_MLPS = (3, 4, 5, 6, 16, *range(21, 29))

# Mixture of experts whose first block has an ordinary MLP.
MOE = Qwen3MoeConfig(
    vocab_size=97,
    hidden_size=32,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    num_hidden_layers=3,
    intermediate_size=48,
    moe_intermediate_size=24,
    num_experts=8,
    num_experts_per_tok=2,
    mlp_only_layers=[0],
    experts_implementation="eager",  # products one by one, so that they are counted
)


def scales(blocks, kinds=("attention", "mlp"), embedding=False):
    return {
        u.name: float(u.block in blocks and u.kind in kinds or embedding and u.kind == "embedding")
        for u in UNITS
    }


def predict(blocks, kinds=("attention", "mlp"), embedding=False, **step):
    return predict_cost(UNITS, scales(blocks, kinds, embedding), SHAPE, StepShape(**step))


def build(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config)).train()
    return model, tuple(unit.info for unit in find_units(model)), model_shape(model)


def test_products_equal_the_closed_form_for_whole_blocks():
    # Per token: block linears a, attention s, head h.
    a, s, h = 2 * (2 * D * D + 2 * D * KV + 3 * D * F), 4 * 128 * D, 2 * VOCAB * D
    full = 3 * N_BLOCKS * a + 3.5 * N_BLOCKS * s + 3 * h
    for low, k in ((26, 4), (13, 4), (0, 4)):
        closed = N_BLOCKS * (a + s) + 2 * h + (N_BLOCKS - low) * (a + 2.5 * s) + k * a
        predicted = predict(range(low, low + k))["ideal_time_ratio"]
        assert predicted == pytest.approx(closed / full, abs=1e-4)
    # The cache saves the forward pass of the blocks below, and nothing else.
    closed = 4 * (a + s) + 2 * h + 4 * (a + 2.5 * s) + 4 * a
    assert predict(TOP, cached=True)["ideal_time_ratio"] == pytest.approx(closed / full, abs=1e-4)
    # Half of the labels: half of the head, forward and backward.
    closed = N_BLOCKS * (a + s) + h + 4 * (a + 2.5 * s) + 4 * a
    half = predict(TOP, label_loss=True, labelled_fraction=0.5)
    assert half["ideal_time_ratio"] == pytest.approx(closed / full, abs=1e-4)


@pytest.mark.parametrize("kind", [*sorted(CONFIGS), "moe"])
def test_products_equal_those_that_torch_counts(kind):
    model, units, shape = build(MOE if kind == "moe" else CONFIGS[kind])
    ids = torch.randint(0, 97, (2, 16))
    plans = {
        "all": {u.name for u in units},
        "last block": {u.name for u in units if u.block == 2},
        "an MLP": {u.name for u in units if u.block == 1 and u.kind == "mlp"},
        "first attention": {u.name for u in units if u.block == 0 and u.kind == "attention"},
        "head": {u.name for u in units if u.kind == "head" or "head" not in kinds_of(units)}
        & {u.name for u in units if u.kind in ("embedding", "head")},
    }
    if kind == "neox":
        # Attention and MLP stand side by side there, and are counted as if one stood on the
        # other: the lowest block then comes out dearer than it is.
        del plans["first attention"], plans["an MLP"]
    counted = {name: count_products(model, names, ids) for name, names in plans.items()}
    for name, names in plans.items():
        found = predict_cost(
            units,
            {u.name: float(u.name in names) for u in units},
            shape,
            # Products of single projections: those among tokens are left out on either side.
            StepShape(sequence_length=1, batch_size=ids.numel()),
        )
        expected = counted[name] / counted["all"]
        assert found["ideal_time_ratio"] == pytest.approx(expected, abs=0.01), name


def kinds_of(units):
    return {unit.kind for unit in units}


def count_products(model, names, ids):
    """Multiply-adds of projections in one step, counted by torch at each call."""
    for unit in find_units(model):
        for parameter in unit.parameters.values():
            parameter.requires_grad_(unit.name in names)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    model.zero_grad()
    counts = {str(key): value for key, value in counter.get_flop_counts()["Global"].items()}
    return sum(value for key, value in counts.items() if key in ("aten.mm", "aten.addmm"))


@pytest.mark.parametrize(("kind", "tolerance"), [("llama_tied", 0.03), ("neox", 0.15)])
@pytest.mark.parametrize("trained", [True, False])
def test_kept_activations_equal_the_tensors_that_autograd_saves(kind, tolerance, trained):
    saved = []
    for n_blocks in (2, 3):
        config = copy.deepcopy(CONFIGS[kind])
        config.num_hidden_layers = n_blocks
        model, _, shape = build(config)
        for unit in find_units(model):
            for parameter in unit.parameters.values():
                # Block 0 is trained in any case, so that the others are on the way.
                parameter.requires_grad_(unit.info.block == 0 or trained)
        saved.append(bytes_saved(model))
    _, units, shape = build(CONFIGS[kind])
    work = step_work(units, shape, StepShape(sequence_length=16, batch_size=4))
    block = [i for i, unit in enumerate(units) if unit.block == 1]
    predicted = work.kept[block].sum() + trained * work.kept_trained[block].sum()
    assert predicted == pytest.approx(saved[1] - saved[0], rel=tolerance)


@pytest.mark.parametrize("kind", ["llama_tied", "gpt2", "neox", "qwen"])
@pytest.mark.parametrize("granularity", ["sublayer", "block"])
def test_projections_are_as_large_as_those_of_the_models_own_layers(kind, granularity):
    model, _, shape = build(CONFIGS[kind])
    units = find_units(model, granularity)
    machine = Machine(1.0, math.inf, math.inf, math.inf)  # seconds are multiply-adds
    step = StepShape(projected=True, machine=machine)
    work = step_work(tuple(unit.info for unit in units), shape, step)
    modules = linear_modules(model)
    for index, unit in enumerate(units):
        own = [modules[name] for name in unit.parameters if name in modules and unit.info.in_stack]
        sizes = [
            layer.weight.shape if isinstance(layer, Conv1D) else layer.weight.shape[::-1]
            for layer in own
        ]
        # A unit's norms and biases are few beside its weights, but in a model as small as this.
        near = {"rel": 0.1}
        names = [name for name in unit.parameters if name in modules and unit.info.in_stack]
        projections = (
            input_projections(input_covariance(model.eval(), [range(8)], names)) if names else {}
        )
        held = 4 * sum(
            projection.numel() for projection in {id(s): s for s in projections.values()}.values()
        )
        assert work.projections[index] == pytest.approx(held, **near)
        products = 2 * sum(n_in**2 * n_out for n_in, n_out in sizes)
        assert work.projection[index] == pytest.approx(products, **near)
        copied = 4 * sum(n_in * n_out for n_in, n_out in sizes)
        assert work.copied[index] == pytest.approx(copied, **near)
        assert work.start[index] == 4 * sum(p.numel() for p in unit.parameters.values())
    plain = step_work(tuple(unit.info for unit in units), shape, StepShape())
    for name in ("projection", "projections", "copied", "start"):
        assert not getattr(plain, name).any(), name


def test_a_projection_costs_time_and_memory_of_what_it_projections_alone():
    def cost(chosen, **step):
        return predict_cost(UNITS, chosen, SHAPE, StepShape(label_loss=True, **step))

    mlps = scales(DEFAULT_MLPS, kinds=("mlp",))
    plain, projected = cost(mlps), cost(mlps, projected=True)
    for name in ("time_ratio", "memory_ratio", "ideal_time_ratio", "optimizer_ratio"):
        assert projected[name] > plain[name], name
    assert projected["forward_ratio"] == plain["forward_ratio"]
    # Twice the tokens, half the share: the projection's work is of the step, not of the tokens.
    more = {"batch_size": 16}
    added = projected["time_ratio"] - plain["time_ratio"]
    added_then = cost(mlps, projected=True, **more)["time_ratio"] - cost(mlps, **more)["time_ratio"]
    assert 0.4 * added < added_then < 0.65 * added
    nothing = {unit.name: float(unit.kind == "norm") for unit in UNITS}
    assert cost(nothing, projected=True) == cost(nothing)


def test_old_text_passes_through_the_whole_model_whatever_is_cached():
    # Per token: block linears a, attention s, head h; a cache and the labels change the rest alone.
    a, h = 2 * (2 * D * D + 2 * D * KV + 3 * D * F), 2 * VOCAB * D
    s, s_held = 4 * 128 * D, 4 * 49 * D
    full = 3 * N_BLOCKS * a + 3.5 * N_BLOCKS * s + 3 * h
    own = 4 * (a + s) + h + 4 * (a + 2.5 * s) + 4 * a
    held = N_BLOCKS * (a + s_held) + 2 * h + 4 * (a + 2.5 * s_held) + 4 * a
    step = {"cached": True, "label_loss": True, "labelled_fraction": 0.5}
    for tokens in (98.0, 512.0):
        found = predict(TOP, **step, kl_tokens=tokens)["ideal_time_ratio"]
        closed = (own + held * tokens / (8 * 128)) / full
        assert found == pytest.approx(closed, abs=1e-4)
    # Whole logits are kept for it where the labels' loss needs none.
    without, with_it = (predict(TOP, **step, kl_tokens=n) for n in (0.0, 98.0))
    assert with_it["memory_ratio"] > without["memory_ratio"]
    assert with_it["optimizer_ratio"] == without["optimizer_ratio"]


def test_a_protected_step_takes_what_was_measured():
    """The quickstart's default arm on two cores: .83 of full training, .98 with old text."""
    step = {"sequence_length": 48, "label_loss": True, "projected": True}
    for kl_tokens, measured in ((0.0, 0.83), (DEFAULT_KL_TOKENS, 0.98)):
        found = predict(DEFAULT_MLPS, kinds=("mlp",), **step, kl_tokens=kl_tokens)
        assert found["time_ratio"] == pytest.approx(measured, abs=0.06)


def bytes_saved(model):
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    found = {}

    def pack(tensor):
        found.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    ids = torch.randint(0, 97, (4, 16))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    assert loss.requires_grad
    return sum(t.untyped_storage().nbytes() for place, t in found.items() if place not in own)


@pytest.mark.parametrize(
    ("blocks", "kinds", "embedding", "time", "memory"),
    # measured: a model of these sizes, 4 x 128 tokens, one core of an AMD EPYC, float32, torch
    # 2.13: best of 2 steps after a warm-up (processor time), and peak resident memory above the
    # weights.
    [
        (TOP, ("attention", "mlp"), False, 0.440, 571 / 2378),
        (MIDDLE, ("attention", "mlp"), False, 0.556, 857 / 2378),
        (BOTTOM, ("attention", "mlp"), False, 0.654, 1089 / 2378),
        (TOP, ("attention", "mlp"), True, 0.773, 1318 / 2378),
        (DEFAULT_MLPS, ("mlp",), False, 0.684, 1295 / 2378),
    ],
)
def test_measured_steps_are_predicted(blocks, kinds, embedding, time, memory):
    found = predict(blocks, kinds, embedding, batch_size=4)
    assert found["time_ratio"] == pytest.approx(time, abs=0.05)
    assert found["memory_ratio"] == pytest.approx(memory, abs=0.10)


def test_full_training_is_one_and_less_is_less():
    full = predict_cost(UNITS, {u.name: 1.0 for u in UNITS}, SHAPE)
    assert (full["time_ratio"], full["memory_ratio"], full["lowest_block"]) == (1, 1, 0)
    top, middle, bottom = predict(TOP), predict(MIDDLE), predict(BOTTOM)
    for ratio in ("time_ratio", "memory_ratio", "ideal_time_ratio"):
        assert top[ratio] < middle[ratio] < predict(SCATTERED)[ratio] < bottom[ratio] < 1
    assert (top["lowest_block"], bottom["lowest_block"]) == (26, 0)


def test_the_parts_add_up_and_say_where_time_goes():
    plan, full = predict(MIDDLE), predict_cost(UNITS, {u.name: 1.0 for u in UNITS}, SHAPE)
    for found in (plan, full):
        parts = [found[f"{part}_ratio"] for part in ("forward", "backward", "optimizer")]
        assert sum(parts) == pytest.approx(found["time_ratio"], abs=2e-4)
    assert plan["forward_ratio"] == full["forward_ratio"]
    # The optimizer touches the trained parameters: 4 of 30 blocks, and not the embedding.
    block = (2 * D * D + 2 * D * KV + 3 * D * F) / sum(u.n_parameters for u in UNITS)
    shown = plan["optimizer_ratio"] / full["optimizer_ratio"]
    assert shown == pytest.approx(4 * block, rel=0.05)


def test_a_trained_tied_embedding_adds_the_whole_depth_its_gradient_and_its_moments():
    with_embedding, without = predict(TOP, embedding=True), predict(TOP)
    assert with_embedding["lowest_block"] == 0
    a, s, h = 2 * (2 * D * D + 2 * D * KV + 3 * D * F), 4 * 128 * D, 2 * VOCAB * D
    closed = (26 * (a + 2.5 * s) + h) / (3 * N_BLOCKS * a + 3.5 * N_BLOCKS * s + 3 * h)
    ideal = with_embedding["ideal_time_ratio"] - without["ideal_time_ratio"]
    assert ideal == pytest.approx(closed, abs=2e-4)
    # A head that is not tied needs its gradient alone, not the depth.
    untied = (*UNITS, UnitInfo("lm_head", "head", None, VOCAB * D))
    head = {name: predict_cost(untied, {**scales(TOP), "lm_head": on}, SHAPE)
            for name, on in (("trained", 1.0), ("frozen", 0.0))}  # fmt: skip
    assert head["trained"]["lowest_block"] == 26
    by_head = head["trained"]["time_ratio"] - head["frozen"]["time_ratio"]
    assert by_head < (with_embedding["time_ratio"] - without["time_ratio"]) / 2


def test_labels_and_cache_save_memory_and_time_where_they_should():
    plain, cached = predict(MIDDLE), predict(MIDDLE, cached=True)
    assert cached["forward_ratio"] < plain["forward_ratio"] - 0.1
    assert cached["backward_ratio"] == plain["backward_ratio"]
    assert predict(BOTTOM, cached=True) == predict(BOTTOM)
    labels = predict(MIDDLE, label_loss=True)
    # Of the time only what the memory of whole logits takes: all tokens are scored here.
    assert plain["time_ratio"] - 0.03 < labels["time_ratio"] < plain["time_ratio"]
    no_new = {"machine": Machine(75e9, 6e9, 20e9, math.inf)}
    times = [predict(MIDDLE, label_loss=on, **no_new)["time_ratio"] for on in (True, False)]
    assert times[0] == pytest.approx(times[1], abs=1e-3)
    assert labels["memory_ratio"] < plain["memory_ratio"] - 0.1
    assert predict(TOP, dtype="bfloat16")["memory_ratio"] != predict(TOP)["memory_ratio"]


def test_a_norm_that_is_registered_before_the_blocks_lies_above_them():
    # As in OPT: the final norm's parameters come first by name.
    units = (UNITS[0], UNITS[-1], *UNITS[1:-1])
    scale = {u.name: float(u.block in TOP or u.kind == "norm") for u in units}
    found = predict_cost(units, scale, SHAPE)
    assert found["lowest_block"] == 26
    assert found["time_ratio"] == pytest.approx(predict(TOP)["time_ratio"], abs=1e-3)


def test_slow_memory_makes_the_optimizer_count():
    balanced = predict(TOP)
    slow = predict(TOP, machine=Machine(75e9, 6e9, 1e9, 2.4e9))
    # Full training pays most for slow memory, so less is left relative to it.
    assert slow["time_ratio"] < balanced["time_ratio"] - 0.05
    ten_times_faster = predict(TOP, machine=Machine(750e9, 60e9, 200e9, 24e9))
    assert ten_times_faster == balanced


def test_slow_new_memory_makes_kept_activations_count():
    """Full training keeps those of all blocks; the logits cost both the same."""
    slow = {"machine": Machine(75e9, 6e9, 20e9, 2.4e8)}
    assert predict(TOP, **slow)["time_ratio"] < predict(TOP)["time_ratio"] - 0.01
    assert predict(MIDDLE, **slow)["time_ratio"] > predict(TOP, **slow)["time_ratio"] + 0.1


@pytest.mark.slow
def test_calibration_gives_rates_of_this_machine():
    rates = calibrate({"hidden_size": 64, "ffn_size": 128}, n_tokens=64)
    for value in (
        rates.products_per_second,
        rates.fresh_bytes_per_second,
        rates.stream_bytes_per_second,
        rates.new_bytes_per_second,
    ):
        assert 1e6 < value < math.inf
    assert predict(TOP, machine=rates)["time_ratio"] < 1


def test_nothing_trained_has_no_cost_and_no_shape_no_ratio():
    nothing = predict(range(0))
    assert set(nothing.values()) == {None}
    some = predict_cost(UNITS, {u.name: float(u.block == 7) for u in UNITS}, {})
    assert (some["time_ratio"], some["memory_ratio"], some["lowest_block"]) == (None, None, 7)


def test_a_profile_of_an_older_version_is_read_by_its_four_sizes():
    old = {name: SHAPE[name] for name in ("n_blocks", "hidden_size", "vocab_size", "kv_size")}
    assert predict_cost(UNITS, scales(MIDDLE), old) == predict(MIDDLE)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (dict(batch_size=0), "batch_size.*from 1 up; found 0"),
        (dict(sequence_length=1.5), "sequence_length"),
        (dict(labelled_fraction=0.0), "labelled_fraction"),
        (dict(dtype="float8"), "float32, bfloat16"),
    ],
)
def test_bad_settings_are_explained(step, message):
    with pytest.raises(GradlocError, match=message):
        predict(TOP, **step)


def test_model_shape_of_a_mixture_counts_its_experts():
    _, _, shape = build(MOE)
    assert (shape["n_experts"], shape["n_experts_per_token"]) == (8, 2)
    assert shape["expert_parameters"] == [0, 8 * 3 * 32 * 24, 8 * 3 * 32 * 24]
    _, _, dense = build(CONFIGS["gpt2"])
    assert "n_experts" not in dense and dense["ffn_size"] == 4 * 32 and dense["tied"] == 1
    assert build(CONFIGS["llama"])[2]["tied"] == 0
