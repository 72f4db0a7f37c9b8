"""Each part computes in bfloat16 if it was chosen, and nothing else does."""

import pytest
import torch
from conftest import build_model
from test_prefix_cache import Rows, build_opt, frozen, loss_and_gradients, rows, same_run
from test_prefix_cache import run as trained

from gradloc.errors import GradlocError
from gradloc.models.label_loss import score_labels_only
from gradloc.models.mixed_precision import PARTS, compute_in_bfloat16

LOWEST = 2


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


def by_hand(model, ids, parts):
    """Logits of a model whose three parts are called one after another."""
    inner, here = model.model, {part: torch.autocast("cpu", torch.bfloat16, part in parts)
                                for part in PARTS}  # fmt: skip
    places = torch.arange(ids.shape[1])[None]
    with here["prefix"]:
        hidden = inner.embed_tokens(ids)
        rotary = inner.rotary_emb(hidden, places)
        for block in inner.layers[:LOWEST]:
            hidden = block(hidden, attention_mask=None, position_embeddings=rotary)
    with here["suffix"]:
        for block in inner.layers[LOWEST:]:
            hidden = block(hidden, attention_mask=None, position_embeddings=rotary)
        hidden = inner.norm(hidden)
    with here["head"]:
        return model.lm_head(hidden)


@pytest.mark.parametrize("parts", [(), ("prefix",), ("suffix",), ("head",), ("prefix", "head")])
def test_each_part_alone_is_in_bfloat16(parts):
    model = frozen(build_model("llama")).train()
    ids = rows(12, 12)["input_ids"]
    expected = by_hand(model, ids, parts)
    handle = compute_in_bfloat16(model, parts, LOWEST)
    found = model(input_ids=ids, use_cache=False).logits
    assert found.dtype == expected.dtype and torch.equal(found, expected)
    handle.remove()
    plain = model(input_ids=ids, use_cache=False).logits
    assert plain.dtype == torch.float32 and torch.equal(plain, by_hand(model, ids, ()))
    assert not parts or not torch.equal(plain, found.float())


@pytest.mark.parametrize("part", PARTS)
def test_parts_are_distinguishable_where_the_base_model_is_not_called(part):
    model = frozen(build_opt())
    seen = {}
    blocks = model.model.decoder.layers
    for name, module in (
        ("prefix", blocks[0].fc1),
        ("suffix", blocks[2].fc1),
        ("head", model.lm_head),
    ):
        module.register_forward_hook(
            lambda m, a, output, name=name: seen.update({name: output.dtype})
        )
    compute_in_bfloat16(model, (part,), LOWEST)
    model(**rows(9))
    assert {name for name, dtype in seen.items() if dtype == torch.bfloat16} == {part}


@pytest.mark.parametrize("parts", [("prefix",), ("head",), ("suffix",)])
def test_gradients_keep_their_dtype_and_round_by_less_than_a_twentieth(parts):
    model = frozen(build_model("llama")).train()
    label_loss = score_labels_only(model)
    exact_loss, exact = loss_and_gradients(model, rows(12, 9))
    handle = compute_in_bfloat16(model, parts, LOWEST)
    loss, grads = loss_and_gradients(model, rows(12, 9))
    assert exact.keys() == grads.keys() and loss.dtype == torch.float32
    assert loss == pytest.approx(float(exact_loss), rel=1e-2) and loss != exact_loss
    for name, grad in grads.items():
        assert grad.dtype == torch.float32
        error = (grad - exact[name]).norm() / exact[name].norm()
        assert 0 < error < 0.05, name
    handle.remove()
    label_loss.remove()


def test_autocast_ends_with_the_pass_also_when_it_fails_or_the_decoder_is_called_alone():
    model = frozen(build_model("llama")).eval()
    handle = compute_in_bfloat16(model, PARTS, LOWEST)
    model.model(input_ids=rows(5)["input_ids"])
    assert not torch.is_autocast_enabled("cpu")
    with pytest.raises(IndexError):
        model(input_ids=torch.tensor([[10**6]]))
    assert not torch.is_autocast_enabled("cpu")
    broken = model.model.layers[2].mlp.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(input_ids=rows(5)["input_ids"])
    assert not torch.is_autocast_enabled("cpu")
    broken.remove()
    handle.remove()


@pytest.mark.slow
def test_a_cached_prefix_in_bfloat16_is_kept_apart_from_one_in_float32(tmp_path):
    # Trained with its prefix in bfloat16: the cache gives the bits of the run without one.
    parts = ("prefix", "head")
    plain = trained(tmp_path / "plain", bfloat16=parts)
    cached = trained(tmp_path / "cached", cache=tmp_path / "cache", bfloat16=parts)
    assert same_run(cached, plain)
    assert cached[2].prefix_cache.n_hits == 47
    exact = trained(tmp_path / "exact")
    assert exact[0] != plain[0]
    # The same folder holds hidden states in bfloat16 by now; float32 must not find them.
    again = trained(tmp_path / "again", cache=tmp_path / "cache")
    assert same_run(again, exact)
    assert again[2].prefix_cache.n_misses == len(Rows()) // 8


def test_reasons_to_refuse():
    model = frozen(build_model("llama"))
    with pytest.raises(GradlocError, match="unknown part 'tail'; choose from prefix"):
        compute_in_bfloat16(model, ("tail",), LOWEST)
    for lowest in (None, 0):
        with pytest.raises(GradlocError, match="no frozen prefix"):
            compute_in_bfloat16(model, ("prefix",), lowest)
        compute_in_bfloat16(model, ("head",), lowest).remove()
