"""Where a model's blocks are, and its sizes; read off the model and its configuration."""

from torch import nn

from gradloc.errors import UnitsError
from gradloc.models.unit_info import ModelShape
from gradloc.models.wrappers import (
    canonical_name,
    input_embedding,
    output_head,
    plain_model,
    unwrap,
)


def model_shape(model: nn.Module) -> ModelShape:
    """The sizes on which the cost of training depends.

    Returns:
        ``n_blocks``, ``hidden_size``, ``vocab_size``, ``n_heads``, ``query_size`` and ``kv_size``
        (queries, and keys or values, of one token), ``ffn_size`` (inner width of an MLP), ``tied``
        (1: the head is the embedding) and ``n_parameters``. Of a mixture of experts also
        ``n_experts``, ``n_experts_per_token`` and ``expert_parameters`` (of the routed experts,
        block by block).
    """
    model = unwrap(model)
    config = _text_config(model)
    n_heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    n_kv_heads = getattr(config, "num_key_value_heads", None) or n_heads
    # Families name it differently; four times the width is what those without a name mean.
    widths = (getattr(config, name, None) for name in ("intermediate_size", "ffn_dim", "n_inner"))
    return {
        "n_blocks": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "vocab_size": config.vocab_size,
        "n_heads": n_heads,
        "query_size": n_heads * head_size,
        "kv_size": n_kv_heads * head_size,
        "ffn_size": next((w for w in widths if isinstance(w, int)), 4 * config.hidden_size),
        "tied": int(_is_tied(model)),
        "n_parameters": sum(p.numel() for p in model.parameters()),
        **_expert_shape(model, config),
    }


def _is_tied(model: nn.Module) -> bool:
    embedding, head = input_embedding(model), output_head(model)
    return embedding is not None and head is not None and embedding.weight is head.weight


def _expert_shape(model: nn.Module, config) -> ModelShape:
    """Sizes of a mixture of experts; nothing for any other model."""
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    counts = (getattr(config, name, None) for name in names)
    n_experts = next((count for count in counts if isinstance(count, int)), 0)
    per_token = getattr(config, "num_experts_per_tok", None)
    if not n_experts or not per_token:
        return {}
    depth = len(canonical_name(block_stack(model)[0]).split("."))
    sizes = [0] * config.num_hidden_layers
    for name, parameter in model.named_parameters():
        parts = canonical_name(name).split(".")
        if "experts" in parts[depth:] and parts[depth].isdigit():
            sizes[int(parts[depth])] += parameter.numel()
    return {
        "n_experts": n_experts,
        "n_experts_per_token": per_token,
        "expert_parameters": sizes,
    }


def _text_config(model: nn.Module):
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise UnitsError(
            f"{type(model).__name__} has no Transformers configuration, so the number of its "
            "blocks is unknown. Pass a Transformers causal language model."
        )
    return config.get_text_config()


def block_stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Name and list of the model's blocks: the one list as long as ``num_hidden_layers``.

    Raises:
        UnitsError: There is no such list, or more than one.
    """
    model = unwrap(model)
    n_blocks = getattr(_text_config(model), "num_hidden_layers", None)
    found: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        # A list inside a block (experts, say) may happen to be as long as the stack.
        nested = any(name.startswith(outer + ".") for outer in found)
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks and not nested:
            found[name] = module
    if len(found) != 1:
        listed = ", ".join(found) if found else "none"
        raise UnitsError(
            f"{type(model).__name__}: expected one list of {n_blocks} blocks "
            f"(config.num_hidden_layers), found {listed}. Layer plans need a decoder with one "
            "unique block stack."
        )
    return next(iter(found.items()))


def decoder_of(model: nn.Module) -> nn.Module:
    """The module that owns the blocks: from token embeddings to what enters the head.

    It is not always what Transformers calls ``base_model``: OPT's head is fed by a part of that.

    Raises:
        UnitsError: As ``block_stack``.
    """
    plain = plain_model(model)
    return plain.get_submodule(block_stack(plain)[0].rpartition(".")[0])
