"""Tiny models built from configuration, one for each way in which models differ."""

import copy
import logging
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    TrainingArguments,
)

from gradloc.cli.main import main
from gradloc.localization.plan import LayerPlan
from gradloc.models.units import find_units

# Scripts of single studies are imported by name, as they import each other.
sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation" / "studies"))

# Studies are found in the clone; gradloc itself is the installed one.
sys.path.append(str(Path(__file__).parents[1]))

# A corpus of any size for tests: invented facts, and currencies that changed.
INVENTED_WORLD = "evaluation.studies.invented_world:read_world"

SIZES = dict(vocab_size=97, hidden_size=32, num_attention_heads=4, num_hidden_layers=3)
GROUPED = dict(**SIZES, intermediate_size=48, num_key_value_heads=2, max_position_embeddings=64)

CONFIGS = {
    "llama": LlamaConfig(**GROUPED, tie_word_embeddings=False),
    "llama_tied": LlamaConfig(**GROUPED, tie_word_embeddings=True),
    # GPT-2: tied head, Conv1D (weights transposed), learned positions
    "gpt2": GPT2Config(vocab_size=97, n_embd=32, n_head=4, n_layer=3, n_positions=64),
    # GPT-NeoX: attention and MLP in parallel on one residual stream
    "neox": GPTNeoXConfig(**SIZES, intermediate_size=48, max_position_embeddings=64),
    # Qwen2: biases on queries, keys and values
    "qwen": Qwen2Config(**GROUPED),
    # Gemma 2: norms before and after each sublayer, soft-capped logits
    "gemma": Gemma2Config(**GROUPED, head_dim=8, sliding_window=32),
}


@pytest.fixture(autouse=True)
def own_logging():
    """The command line sets handlers and levels; no other test is to see them."""
    loggers = logging.getLogger(), logging.getLogger("gradloc")
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.fixture
def gradloc(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gradloc", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def build_model(kind: str, seed: int = 0) -> torch.nn.Module:
    """A tiny model with random weights large enough that every layer matters."""
    torch.manual_seed(seed)
    # A copy: saving a model writes its type into its configuration.
    model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[kind]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                parameter.mul_(3.0)
            elif "bias" in name or "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


CHOSEN = ("model.layers.1.mlp", "model.layers.2.self_attn")


def plan_for(model, chosen=CHOSEN, scale=1.0, granularity="sublayer"):
    """A plan that trains the units whose names hold one of the chosen parts."""
    units = tuple(unit.info for unit in find_units(model, granularity))
    trained = {u.name: scale if any(part in u.name for part in chosen) else 0.0 for u in units}
    return LayerPlan(scale=trained, units=units, granularity=granularity)


def training_arguments(folder, **given):
    """Arguments of a training on the CPU that saves, reports and draws nothing unless told."""
    quiet = dict(use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True)
    return TrainingArguments(output_dir=str(folder), **quiet | given)


@pytest.fixture(params=sorted(CONFIGS))
def any_model(request):
    return build_model(request.param)


@pytest.fixture
def llama():
    return build_model("llama_tied")


@pytest.fixture(scope="session")
def character_tokenizer():
    """One token a character: the 95 printable ones of ASCII, unknown and padding; 97 in all."""
    characters = [chr(code) for code in range(32, 127)]
    vocabulary = {token: index for index, token in enumerate([*characters, "<unk>", "<pad>"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    # decode() puts spaces between tokens unless a decoder joins them.
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", eos_token="~"
    )


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, character_tokenizer):
    """Folder of a tiny Llama with a tokenizer that reads one character a token."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = LlamaConfig(**GROUPED | {"max_position_embeddings": 512}, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    character_tokenizer.save_pretrained(folder)
    return folder
