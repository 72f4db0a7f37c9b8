"""A Llama with random weights, as large as is wanted: for figures of time and memory.

Comes in: sizes. Goes out: a Hugging Face folder with the tokenizer of SmolLM2, which every command
takes as a model.

    python evaluation/studies/random_model.py runs/random-3b --hidden 3072 --blocks 32 \
        --dtype bfloat16
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from gradloc.models import load_tokenizer


def make_model(
    folder: Path, hidden: int, blocks: int, intermediate: int, dtype: torch.dtype, seed: int = 0
) -> int:
    """Write the model; heads have 128 dimensions, three share their keys and values.

    Returns:
        Its number of parameters.
    """
    tokenizer = load_tokenizer("smollm2-135m-instruct")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=blocks,
        intermediate_size=intermediate,
        num_attention_heads=hidden // 128,
        num_key_value_heads=max(1, hidden // 128 // 3),
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    """Read the arguments and write the model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where the model is written")
    parser.add_argument("--hidden", type=int, default=3072, help="width, a multiple of 384")
    parser.add_argument("--blocks", type=int, default=32)
    parser.add_argument("--intermediate", type=int, default=8192, help="width of the MLPs")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.hidden % 384:
        parser.error("--hidden must be a multiple of 384: three heads of 128 share their keys")
    n = make_model(
        given.folder, given.hidden, given.blocks, given.intermediate,
        getattr(torch, given.dtype), given.seed,
    )  # fmt: skip
    print(f"{given.folder}: {n / 1e9:.2f} billion parameters")


if __name__ == "__main__":
    main()
