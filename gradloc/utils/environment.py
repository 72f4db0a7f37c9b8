"""What a run runs in: versions of the libraries and of gradloc itself."""

import subprocess
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any

# The libraries whose version can change a result.
_LIBRARIES = (
    "gradloc",
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "peft",
    "trl",
    "datasets",
    "safetensors",
    "numpy",
    "scipy",
)


def current_environment() -> dict[str, Any]:
    """Versions of Python and of the libraries a result depends on, and the git revision.

    Nothing is imported. ``git_revision`` is there only where gradloc runs from a git checkout;
    it ends in ``-dirty`` where files of the checkout were changed.
    """
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    environment: dict[str, Any] = {"python": python_version(), "versions": versions}
    if revision := _git_revision(Path(__file__).resolve().parents[2]):
        environment["git_revision"] = revision
    return environment


def _git_revision(root: Path) -> str:
    if not (root / ".git").exists():
        return ""
    # --exclude: the full hash, whatever tags there are.
    command = "git describe --always --dirty --abbrev=40 --exclude=*".split()
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
