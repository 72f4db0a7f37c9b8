import pytest

from gradloc.cost import predict_cost
from gradloc.profile import UnitInfo

D, F, KV, N_BLOCKS, VOCAB = 576, 1536, 192, 30, 49_152
SHAPE = {"n_blocks": N_BLOCKS, "hidden_size": D, "vocab_size": VOCAB, "kv_size": KV}
UNITS = (
    UnitInfo("embed", "embedding", None, VOCAB * D),
    *(
        UnitInfo(f"{i}.{kind}", kind, i, size)
        for i in range(N_BLOCKS)
        for kind, size in (("attention", 2 * D * D + 2 * D * KV), ("mlp", 3 * D * F))
    ),
    UnitInfo("norm", "norm", None, D),
)


def predict(blocks, kinds=("attention", "mlp"), embedding=False):
    scale = {
        u.name: float(u.block in blocks and u.kind in kinds or embedding and u.kind == "embedding")
        for u in UNITS
    }
    return predict_cost(UNITS, scale, SHAPE)


def test_equals_the_closed_form_for_whole_blocks():
    # Per token: block linears a, attention s, head h (design of the cost model).
    a, s, h = 2 * (2 * D * D + 2 * D * KV + 3 * D * F), 4 * 128 * D, 2 * VOCAB * D
    full = 3 * N_BLOCKS * a + 3.5 * N_BLOCKS * s + 3 * h
    for low, k in ((26, 4), (13, 4), (0, 4)):
        closed = (
            N_BLOCKS * (a + s)
            + 2 * h
            + (N_BLOCKS - low) * (a + 2.5 * s)
            + k * a
            - 2 * (D**2 + 2 * D * KV)
        )
        assert predict(range(low, low + k))["time_ratio"] == pytest.approx(closed / full, abs=1e-3)


def test_full_training_is_one_and_less_is_less():
    full = predict_cost(UNITS, {u.name: 1.0 for u in UNITS}, SHAPE)
    assert (full["time_ratio"], full["memory_ratio"], full["lowest_block"]) == (1, 1, 0)
    top, middle, bottom = predict(range(26, 30)), predict(range(13, 17)), predict(range(4))
    assert top["time_ratio"] < middle["time_ratio"] < bottom["time_ratio"] < 1
    assert top["memory_ratio"] < middle["memory_ratio"] < bottom["memory_ratio"] < 1
    assert (top["lowest_block"], bottom["lowest_block"]) == (26, 0)


def test_a_trained_tied_embedding_carries_the_backward_pass_through_the_whole_depth():
    with_embedding = predict(range(26, 30), embedding=True)
    assert with_embedding["lowest_block"] == 0
    assert with_embedding["time_ratio"] > predict(range(26, 30))["time_ratio"] + 0.2


def test_nothing_trained_has_no_cost_and_no_shape_no_ratio():
    assert predict(range(0)) == {"time_ratio": None, "memory_ratio": None, "lowest_block": None}
    some = predict_cost(UNITS, {u.name: float(u.block == 7) for u in UNITS}, {})
    assert some == {"time_ratio": None, "memory_ratio": None, "lowest_block": 7}
