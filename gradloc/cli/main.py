"""The command line: finds the command, reads its options, shows its errors.

Exit codes: 0; 2 for bad input and failed stages; 3 where ``--fail-if`` holds; 130 when interrupted.
"""

import ast
import importlib
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gradloc import __version__
from gradloc.errors import GradlocError
from gradloc.utils.names import did_you_mean

# Command -> module of the function of that name, in the order in which people need them.
# Modules are imported when a command runs, so that `gradloc --help` answers at once.
COMMANDS = {
    "run": "pipeline",
    "validate": "validation",
    "measure": "pipeline",
    "plan": "plan",
    "select": "pipeline",
    "train": "pipeline",
    "evaluate": "evaluate",
    "report": "pipeline",
    "merge": "merge",
    "sweep": "sweep",
    "continual": "continual",
    "bench": "bench",
}

OVERVIEW = """\
usage: gradloc COMMAND ...

Train a language model on news where its gradients pull, and see what it forgets.

The whole pipeline, from a recipe to a report:
  gradloc run recipes/quickstart.yaml
Or stage by stage, each on files:
  gradloc measure MODEL --probes probes.jsonl --reference reference.jsonl
  gradloc select profile.json --policy interference_ratio
  gradloc train RECIPE --plan plan.json
  gradloc evaluate CHECKPOINT --suite temporal --baseline MODEL
  gradloc report runs/NAME

MODEL and CHECKPOINT are a local Hugging Face folder (of a model or a PEFT adapter), a hub id, a
.gguf file, or smollm2-135m-instruct for the packaged weights.

commands (gradloc COMMAND --help says more):
{commands}

options:
  -h, --help   show this text
  --version    show the version
  --debug      show tracebacks and the libraries' own messages; works behind a command too
"""


def main() -> None:
    """Entry point: every expected failure is one message and exit code 2."""
    words = [word for word in sys.argv[1:] if word != "--debug"]
    debug = len(words) < len(sys.argv) - 1
    try:
        _show_messages(debug)
        _run(words)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues from what is finished.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # whoever read the output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (GradlocError, OSError) as error:
        if debug:
            raise
        print(f"gradloc: {_one_error(error)}", file=sys.stderr)
        sys.exit(2)


def overview() -> str:
    """The text of ``gradloc --help``."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {_summary(name)}" for name in COMMANDS]
    return OVERVIEW.format(commands="\n".join(lines))


def command(name: str) -> Callable[..., None]:
    """The function of a command."""
    module = importlib.import_module(f"gradloc.cli.{COMMANDS[name]}")
    return getattr(module, name)


def _run(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(overview(), end="")
        return
    if words[0] == "--version":
        print(f"gradloc, version {__version__}")
        return
    # As under `python -m`: a recipe can name policies and methods of a module that lies here.
    sys.path.append(os.getcwd())
    from gradloc.cli.options import read_options

    name = words[0]
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS)
        raise GradlocError(f"command '{name}' is unknown. {hint} gradloc --help lists them.")
    read_options(command(name), f"gradloc {name}", words[1:])()


def _summary(name: str) -> str:
    """First line of a command's docstring, without an import of its module."""
    source = Path(__file__).with_name(f"{COMMANDS[name]}.py").read_text(encoding="utf-8")
    (function,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    return (ast.get_docstring(function) or "").partition("\n")[0]


def _one_error(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}. What finished stages wrote is unchanged."
    return str(error)


class _Terminal(logging.Handler):
    """Messages on standard error; those on progress with the minutes and seconds since the start.

    It looks up ``sys.stderr`` for each message, so that a test or notebook may replace it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.start = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno == logging.INFO:
            minutes, seconds = divmod(int(time.monotonic() - self.start), 60)
            text = f"[{minutes:2d}:{seconds:02d}] {text}"
        print(text, file=sys.stderr)


def _show_messages(debug: bool) -> None:
    """Show gradloc's progress and all warnings; the libraries' bars and advice with ``--debug``."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING, handlers=[_Terminal()], force=True
    )
    logging.getLogger("gradloc").setLevel(logging.DEBUG if debug else logging.INFO)
    if not debug:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


if __name__ == "__main__":
    main()
