"""Models and tokenizers from their sources."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from gradloc.errors import GradlocError, ModelError
from gradloc.models.gguf_files import reading_gguf, split_digits
from gradloc.models.sources import PACKAGED, TOKENIZER_FILES, ModelSource, has_any, resolve
from gradloc.utils.names import did_you_mean

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

# assumption: a hub that does not answer in this time is as good as none.
HUB_TIMEOUT_SECONDS = 5


def load_model(
    name: str | Path, *, dtype: str = "float32", device: str | torch.device | None = None
) -> PreTrainedModel:
    """Load a causal language model that trains and saves as a normal one.

    GGUF weights are unpacked; an adapter is merged into its base.

    Args:
        name: Folder, hub id, ``.gguf`` file, adapter folder or a name of ``PACKAGED``. Pickled
            weights are refused, unless their file itself is named (``.../pytorch_model.bin``).
        dtype: Type of the weights: a key of ``DTYPES``.
        device: Where to put the model; default: the CPU.

    Returns:
        The model in evaluation mode; ``config._name_or_path`` is ``name``.

    Raises:
        ModelError: The model cannot be found or loaded; the message says what to do.
    """
    if dtype not in DTYPES:
        raise ModelError(f"dtype {dtype!r} is unknown. {did_you_mean(dtype, DTYPES)}")
    source = resolve(name)
    if source.kind == "adapter":
        model = _load_adapter(source, dtype)
    else:
        model = _load_weights(source, DTYPES[dtype])
    # So that load_tokenizer finds what belongs to the model.
    model.config._name_or_path = model.name_or_path = source.name
    # Transformers wraps `to` in a decorator that hides its signature.
    return model.to(device) if device is not None else model  # type: ignore[arg-type]


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a model.

    Args:
        name: As for ``load_model``; an adapter without a tokenizer has that of its base.

    Returns:
        The fast tokenizer.

    Raises:
        ModelError: The tokenizer is missing, or has no fast form, which spans need.
    """
    source = resolve(name)
    if source.kind == "adapter" and not has_any(source.path, TOKENIZER_FILES):
        return load_tokenizer(source.base)
    if source.kind == "folder" and not has_any(source.path, TOKENIZER_FILES):
        raise ModelError(
            f"{source.name}: the folder has no tokenizer (tokenizer.json). Save it beside the "
            "weights: tokenizer.save_pretrained(folder)."
        )
    with _loading(source, "tokenizer"):
        if source.kind == "gguf":
            tokenizer = PreTrainedTokenizerFast.from_pretrained(
                source.path, gguf_file=source.gguf_file
            )
            if source.name in PACKAGED:
                split_digits(tokenizer)
        else:
            tokenizer = AutoTokenizer.from_pretrained(source.path, **_hub_options(source))
    if not tokenizer.is_fast:
        raise ModelError(
            f"{source.name}: {type(tokenizer).__name__} is a slow tokenizer, which does not say "
            "which characters a token stands for. Use one with a tokenizer.json."
        )
    return tokenizer


# Two scripts' worth of quirks: punctuation, digits, blanks, accents, emoji, right to left.
_SAMPLES = (
    "The mayor of Zürich said: “It's 3,141.59 € — not more!”\n\n\tNext line.  Two  spaces.",
    " leading space, Ελληνικά, русский, العربية, हिन्दी, 日本語, ภาษาไทย, 한국어, e\u0301, 👩‍🚀🏽",
)


def same_tokenizer(a: PreTrainedTokenizerFast, b: PreTrainedTokenizerFast) -> bool:
    """Whether two tokenizers turn text into the same ids.

    Their scores can be compared only then: nats per token of other tokens are other numbers.
    """
    return a.get_vocab() == b.get_vocab() and all(
        a(text)["input_ids"] == b(text)["input_ids"] for text in _SAMPLES
    )


def _load_weights(source: ModelSource, dtype: torch.dtype) -> PreTrainedModel:
    options = _hub_options(source)
    if source.kind == "gguf":
        from transformers import GgufConfig

        options["gguf_file"] = source.gguf_file
        # Without dequantize the model refuses save_pretrained and the Trainer.
        options["quantization_config"] = GgufConfig(dequantize=True)
    else:
        options["use_safetensors"] = not source.weights_file
    with _loading(source, "model"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.path, dtype=dtype, output_loading_info=True, **options
        )
    model, report = loaded  # a pair, which Transformers' annotation does not say
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{source.name}: the weights lack {len(missing)} tensors of the model, the first of "
            f"them {missing[0]}; they would be random. Is it a whole checkpoint of this model?"
        )
    # A GGUF file's own title, which Transformers leaves among the settings that are saved.
    model.config.__dict__.pop("_model_name_or_path", None)
    return model


def _load_adapter(source: ModelSource, dtype: str) -> PreTrainedModel:
    from peft import PeftModel

    try:
        base = load_model(source.base, dtype=dtype)
    except ModelError as error:
        raise ModelError(
            f"{source.name}: its base model, as adapter_config.json names it: {error}"
        ) from error
    with _loading(source, "adapter"):
        return PeftModel.from_pretrained(base, source.path).merge_and_unload()


def _hub_options(source: ModelSource) -> dict[str, Any]:
    """Options for a hub id, after one quick look whether the hub has it.

    Offline, Transformers asks for each file six times before it gives up: 46 s for a typing
    error in the name of a folder.
    """
    if source.kind != "hub":
        return {}
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    no_folder = f"{source.name}: there is no such folder here"
    hint = "" if "/" in source.name else f" {did_you_mean(source.name, PACKAGED)}"
    try:
        huggingface_hub.HfApi().model_info(source.path, timeout=HUB_TIMEOUT_SECONDS)
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise ModelError(f"{no_folder}, and the model hub has no such model.{hint}") from error
    except Exception as error:  # no network shows itself in many kinds of error
        if isinstance(huggingface_hub.try_to_load_from_cache(source.path, "config.json"), str):
            return {"local_files_only": True}
        raise ModelError(
            f"{no_folder}, and the model hub cannot be reached ({type(error).__name__}).{hint}"
        ) from error
    return {}


@contextmanager
def _loading(source: ModelSource, what: str) -> Iterator[None]:
    """Load without progress bars, and name the model in any failure."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        with reading_gguf(source.name) if source.kind == "gguf" else nullcontext():
            yield
    except GradlocError:
        raise
    except Exception as error:  # broken files show themselves in dozens of kinds of error
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        reason = reason if len(reason) <= 300 else reason[:297] + "..."
        raise ModelError(f"{source.name}: the {what} cannot be loaded: {reason}") from error
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
