"""The loss at labelled positions is the model's own, forward and backward."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
)

from gradloc.errors import GradlocError
from gradloc.models import label_loss
from gradloc.models.label_loss import linear_cross_entropy, score_labels_only

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 97}
CONFIGS = {
    "llama_tied": LlamaConfig(**SMALL, intermediate_size=48, tie_word_embeddings=True),
    "llama_untied": LlamaConfig(**SMALL, intermediate_size=48, tie_word_embeddings=False),
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=97, resid_pdrop=0, attn_pdrop=0,
                       embd_pdrop=0),
    "neox": GPTNeoXConfig(**SMALL, intermediate_size=48),
    "mixtral": MixtralConfig(**SMALL, intermediate_size=48, num_key_value_heads=2,
                             num_local_experts=4, output_router_logits=True),
}  # fmt: skip


def make(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).train()


def batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 97, (3, 11), generator=generator)
    labels = ids.clone()
    labels[0, :6] = -100
    labels[2, 4:] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def step(model, **options):
    model.zero_grad()
    output = model(**batch(), **options)
    output.loss.backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return output, grads


@pytest.mark.parametrize("trained", ["all", "suffix"])
@pytest.mark.parametrize("name", CONFIGS)
def test_equals_the_models_own_loss_and_gradients(name, trained, monkeypatch):
    # Two tokens at a time, so that chunks have to be put together.
    monkeypatch.setattr(label_loss, "CHUNK_BYTES", 2 * 4 * 97)
    model = make(CONFIGS[name])
    if trained == "suffix":
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            module.requires_grad_(False)
    for options in ({}, {"num_items_in_batch": 40}):
        plain, expected = step(model, **options)
        handle = score_labels_only(model)
        lean, found = step(model, **options)
        handle.remove()
        assert lean.loss.item() == pytest.approx(plain.loss.item(), abs=1e-6)
        assert lean.logits is None
        assert found.keys() == expected.keys()
        for parameter, grad in expected.items():
            torch.testing.assert_close(found[parameter], grad, atol=1e-6, rtol=1e-5)


def test_the_models_own_forward_is_back_after_remove_and_never_gone_in_evaluation():
    model = make(CONFIGS["llama_tied"])
    expected = model(**batch())
    handle = score_labels_only(model)
    assert model(**batch()).logits is None
    assert model(input_ids=batch()["input_ids"]).logits.shape[-1] == 97  # no labels
    torch.testing.assert_close(model.eval()(**batch()).logits, expected.logits)
    handle.remove()
    output = model.train()(**batch())
    assert torch.equal(output.logits, expected.logits)
    assert torch.equal(output.loss, expected.loss)


def test_a_tensor_of_all_logits_never_exists(monkeypatch):
    monkeypatch.setattr(label_loss, "CHUNK_BYTES", 4 * 4 * 97)
    sizes = []
    softmax = torch.softmax
    monkeypatch.setattr(
        torch, "softmax", lambda x, *a, **k: sizes.append(len(x)) or softmax(x, *a, **k)
    )
    hidden = torch.randn(10, 8, requires_grad=True)
    linear_cross_entropy(hidden, torch.randn(97, 8), torch.arange(10)).backward()
    assert sizes == [4, 4, 2]


def test_extreme_logits_stay_finite_and_right():
    hidden = torch.tensor([[1e4, 0.0], [-1e4, 1.0]], requires_grad=True)
    weight, bias = torch.eye(2).repeat(3, 1), torch.linspace(-1, 1, 6)
    targets = torch.tensor([1, 0])
    total = linear_cross_entropy(hidden, weight, targets, bias)
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T + bias, targets, reduction="sum")
    (grad,) = torch.autograd.grad(total, hidden)
    (expected_grad,) = torch.autograd.grad(expected, hidden)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(grad, expected_grad)


def test_bfloat16_model_keeps_to_its_own_loss():
    model = make(CONFIGS["llama_untied"]).bfloat16()
    plain, expected = step(model)
    handle = score_labels_only(model)
    lean, found = step(model)
    handle.remove()
    assert lean.loss.item() == pytest.approx(plain.loss.item(), rel=1e-3)
    for parameter, grad in expected.items():
        assert found[parameter].dtype == torch.bfloat16
        difference = (found[parameter] - grad).float().norm() / grad.float().norm()
        assert difference < 0.02, parameter


def test_logits_that_are_changed_behind_the_head_are_refused():
    config = Gemma2Config(**SMALL, intermediate_size=48, num_key_value_heads=2, head_dim=8)
    model = make(config)
    with pytest.raises(GradlocError, match="changed after the head"):
        score_labels_only(model)
    assert model(**batch()).logits is not None
