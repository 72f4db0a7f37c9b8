"""What each model writes after a few prompts, before and after training."""

import re
from typing import Any

from gradloc.evaluation.results import EvalResult
from gradloc.report.arms import leading_arms
from gradloc.report.page import Answer, Example, Examples, Text
from gradloc.report.styles import ArmStyle


def example_blocks(results: EvalResult, styles: dict[str, ArmStyle]) -> list[Any]:
    """Prompts with every leading arm's answer; empty where the evaluation kept none."""
    if not results.examples:
        return []
    hidden = set(results.arms) - set(leading_arms(results))
    shown = []
    for example in results.examples:
        target, old = (str(example.get(key) or "").strip() for key in ("target", "old_target"))
        written = example.get("answers") or {}
        names = [name for name in dict.fromkeys(["baseline", *written]) if name in written]
        answers = [
            Answer(
                "before" if name == "baseline" else name,
                str(written[name] or "").strip(),
                judge_answer(str(written[name] or ""), target, old),
                styles.get(name),
            )
            for name in names
            if name not in hidden
        ]
        about = [str(example.get("group") or ""), f"answer {target}"]
        about.append(f"formerly {old}" if old else "")
        note = " · ".join(filter(None, about))
        shown.append(Example(str(example.get("prompt") or ""), note, answers))
    lead = "What each model writes after the prompt. ✓ right, ↺ the former answer, ✗ neither."
    return [Text(lead), Examples(shown)]


def judge_answer(answer: str, target: str, old: str) -> str:
    """Whether an answer opens with the right text, with the former one, or with neither."""
    if _begins_with(answer, target):
        return "right"
    return "old" if _begins_with(answer, old) else "wrong"


def _begins_with(answer: str, target: str) -> bool:
    """Whether the answer opens with the target as whole words, in any case and spacing."""
    answer, target = (
        re.sub(r"\s+", " ", text).strip(" \"'.,").casefold() for text in (answer, target)
    )
    if not target or not answer.startswith(target):
        return False
    rest = answer[len(target) :]
    return not rest or not rest[0].isalnum()
