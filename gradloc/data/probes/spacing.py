"""How two pieces of text meet: with a space between them, or without."""

import re
import unicodedata

# Code points of scripts written without spaces between words.
_SPACELESS = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19FF),  # Tai Le, New Tai Lue, Khmer symbols
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x312F),  # CJK radicals and punctuation, kana, bopomofo (Hangul has spaces)
    (0x31A0, 0x9FFF),  # kana extensions, CJK ideographs
    (0xA980, 0xA9FF),  # Javanese, Myanmar extended
    (0xAA60, 0xAADF),  # Myanmar extended, Tai Viet
    (0xF900, 0xFAFF),  # CJK compatibility ideographs
    (0xFF00, 0xFF9F),  # full-width forms, half-width kana
    (0x1B000, 0x1B16F),  # kana supplements
    (0x20000, 0x3FFFF),  # CJK ideographs, supplementary planes
)
_QUOTES = "\"'"
_CLOSING = set(".,;:!?%‰…、。，．：；！？،؛؟।॥")
_CLITIC = re.compile(r"['’](s|t|d|m|ll|re|ve)\b(?!-)", re.IGNORECASE)


def join(prompt: str, answer: str) -> str:
    """Put an answer behind a prompt, with one space between them where writing wants one.

    No space is put if either is empty; if the prompt ends, or the answer begins, with white
    space; if the prompt ends with an opening bracket or quote, a dash or a currency sign that
    nothing precedes; if the answer begins with closing punctuation, a combining mark, or a
    hyphen and a letter; or if both neighbours belong to scripts written without spaces
    (Chinese, Japanese, Thai, Lao, Khmer, Myanmar, ...).

    Example:
        >>> join("The capital of France is", "Paris")
        'The capital of France is Paris'
        >>> join("The film (", "1994")
        'The film (1994'
        >>> join("日本の首都は", "東京")
        '日本の首都は東京'
    """
    glued = not prompt or not answer or prompt[-1].isspace() or answer[0].isspace()
    glued = glued or _opens(prompt) or _closes(answer)
    glued = glued or (_is_spaceless(prompt[-1]) and _is_spaceless(answer[0]))
    return prompt + answer if glued else f"{prompt} {answer}"


def _opens(prompt: str) -> bool:
    """Whether the last character belongs to what follows."""
    last, before = prompt[-1], prompt[-2:-1]
    category = unicodedata.category(last)
    if category in ("Ps", "Pd") or last in "¿¡":
        return True
    # Quotes differ between languages: “ opens in English and closes in German. What stands
    # before a quote decides.
    alone = not before or before.isspace() or unicodedata.category(before) in ("Ps", "Pi", "Pd")
    return alone and (category in ("Pi", "Pf", "Sc") or last in _QUOTES)


def _closes(answer: str) -> bool:
    """Whether the first character belongs to what precedes."""
    first, after = answer[0], answer[1:2]
    category = unicodedata.category(first)
    if category == "Pe" or category.startswith("M") or _CLITIC.match(answer):
        return True
    if first in _CLOSING:
        return not (first == "." and after.isalnum())  # .NET, .5
    if category == "Pd":
        return after.isalpha()
    if category in ("Pi", "Pf") or first in _QUOTES:
        return not after or after.isspace() or after in _CLOSING
    return False


def _is_spaceless(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in _SPACELESS)
