"""Whether what a model writes is one of the right answers.

References: Rajpurkar et al. 2016 (SQuAD), arXiv:1606.05250; Jang et al. 2022 (CKL),
arXiv:2110.03215; Onoe et al. 2022 (ECBD), arXiv:2205.02832.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from gradloc.errors import GradlocError

# Places that T5 fills; models trained on its task write them before an answer.
_SENTINEL = re.compile(r"<extra_id_\d+>", re.IGNORECASE)
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str, *, released: bool = False) -> str:
    """Lower case without ASCII punctuation, articles and superfluous white space.

    Args:
        text: What is compared.
        released: T5's sentinels (``<extra_id_0>``) are removed first. The released code of CKL
            looks for them after it has removed the punctuation, where it finds none, so that
            ``extraid0`` stays in the answer; ``True`` does the same.

    Example:
        >>> normalize_answer("<extra_id_0> The U.S.A.")
        'usa'
        >>> normalize_answer("<extra_id_0> The U.S.A.", released=True)
        'extraid0 usa'
    """
    if not released:
        text = _SENTINEL.sub(" ", text)
    text = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLE.sub(" ", text).split())


def exact_match(prediction: str, answers: str | Sequence[str], *, released: bool = False) -> float:
    """1 where the prediction is one of the answers after normalisation, else 0.

    Args:
        prediction: What the model wrote.
        answers: One answer, or all that count as right; the best one counts.
        released: As in ``normalize_answer``.

    Raises:
        GradlocError: There is no answer to compare with.

    Example:
        >>> exact_match("the Eiffel Tower.", ["Tour Eiffel", "Eiffel Tower"])
        1.0
    """
    written = normalize_answer(prediction, released=released)
    return _best(
        answers, lambda answer: float(written == normalize_answer(answer, released=released))
    )


def token_f1(prediction: str, answers: str | Sequence[str], *, released: bool = False) -> float:
    """Harmonic mean of precision and recall of the prediction's words, as in SQuAD.

    Words are counted as often as they occur. Where nothing is left of either text after
    normalisation, the value is that of ``exact_match``: 1 where both are empty, so that F1 is
    never below exact match (as in SQuAD 2.0). The released code of CKL gives 0 also then.

    Args:
        prediction: What the model wrote.
        answers: One answer, or all that count as right; the best one counts.
        released: Normalise as the released code does, and give 0 for two empty texts.

    Raises:
        GradlocError: There is no answer to compare with.

    Example:
        >>> round(token_f1("the tall Eiffel Tower", "Eiffel Tower"), 3)
        0.8
    """
    written = normalize_answer(prediction, released=released).split()

    def compare(answer: str) -> float:
        right = normalize_answer(answer, released=released).split()
        if not written and not right and not released:
            return 1.0
        n_common = sum((Counter(written) & Counter(right)).values())
        # 2 P R / (P + R) with P = common / written and R = common / right.
        return 2 * n_common / (len(written) + len(right)) if n_common else 0.0

    return _best(answers, compare)


def recall_at_k(beams: Sequence[str], answers: str | Sequence[str], k: int = 10) -> float:
    """1 where one of the first k beams is an answer, letter for letter, else 0.

    As ECBD compares: no normalisation, upper and lower case differ.

    Args:
        beams: What the model may write, the likeliest first.
        answers: One answer, or all that count as right.
        k: How many beams count.

    Raises:
        GradlocError: There is no answer to compare with.

    Example:
        >>> recall_at_k(["Rome", "Paris"], "Paris"), recall_at_k(["Rome", "Paris"], "Paris", k=1)
        (1.0, 0.0)
    """
    return _best(answers, lambda answer: float(answer in beams[:k]))


def _best(answers: str | Sequence[str], compare: Callable[[str], float]) -> float:
    answers = [answers] if isinstance(answers, str) else list(answers)
    if not answers:
        raise GradlocError("there is no answer to compare with; give at least one right answer.")
    return max(compare(answer) for answer in answers)
