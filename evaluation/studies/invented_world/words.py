"""Pronounceable invented names, as many as are needed, never the same one twice.

No list of used names is kept: words differ by construction, so the millionth is as cheap as the
first.

A word is a run of consonants, a run of vowels, a run of consonants ..., and an ending that
belongs to its kind. Since runs alternate, a word can be read back in one way only, and another
choice of parts is another word.
"""

import hashlib
from functools import cache

_ONSETS = (
    "b br ch d dr f fl fr g gl gr h j k kl kr l m n p pr qu r s sh sk sl st str sv t th tr v w y z"
).split()
_VOWELS = "a e i o u ei ou".split()
_MIDDLES = (
    "br d dr g gr ld ldr lg lk lm ln lt lv mb mbr mm mr nd ndr ng ngr nn nst nt ntr nv nz pr rb rd "
    "rg rk rl rm rn rr rsk rt rth rv rz sk sl sn st str tr tt vr zd"
).split()
# Only for words past the end of the short ones. None of these runs opens an ending.
_LONG_MIDDLES = "b ch j ph sh x bl fl gl kl pl sp".split()

# Kind -> endings. A word is told from the words of another kind by its ending.
_ENDINGS = {
    "town": "aven aholt amere edal elund emoor iden igarth oford ohaven oley ostead urwick".split(),
    "region": "alia ania athia ennia eria ethia ildia onia oria undia uria ysia".split(),
    "river": "al are eld ene il im ole om ul une ys yll".split(),
    "person": "an ander ano ardi ec ek ell enko ero esco idis iev iny ob off orr oux yk".split(),
    "group": "ax aldic andra ason endis erix ina ivo odyne olis unity".split(),
    "event": "ada amis avi elle enta ette ita ival ola ora uma una".split(),
    "venue": "adia arch athe emont erra essa igo imba ope osta otto umbra".split(),
    "ship": "air as ean ella ia inga iss us ynx yra yx".split(),
}


def invented_word(kind: str, seed: int, index: int) -> str:
    """The ``index``-th invented word of a kind, capitalised.

    Args:
        kind: ``town``, ``region``, ``river``, ``person``, ``group``, ``event``, ``venue``,
            ``ship``.
        seed: Another seed gives the words in another order.
        index: From 0 on; different indices give different words, different kinds too.

    Example:
        >>> invented_word("town", 0, 0) == invented_word("town", 0, 0)
        True
        >>> len({invented_word("town", 0, index) for index in range(1000)})
        1000
    """
    endings = _ENDINGS[kind]
    short = len(_ONSETS) * len(_VOWELS) * len(_MIDDLES) * len(endings)
    extra = ""
    if index >= short:
        index -= short
        index, middle = divmod(index, len(_LONG_MIDDLES))
        index, vowel = divmod(index, len(_VOWELS))
        if index >= short:
            raise ValueError(f"there are only {n_words(kind):,} words of kind {kind!r}")
        extra = _VOWELS[vowel] + _LONG_MIDDLES[middle]
    index = _shuffled(index, short, f"{seed}/{kind}")
    index, ending = divmod(index, len(endings))
    index, middle = divmod(index, len(_MIDDLES))
    onset, vowel = divmod(index, len(_VOWELS))
    word = _ONSETS[onset] + _VOWELS[vowel] + _MIDDLES[middle] + extra + endings[ending]
    return word.capitalize()


def n_words(kind: str) -> int:
    """How many different words of a kind there are."""
    short = len(_ONSETS) * len(_VOWELS) * len(_MIDDLES) * len(_ENDINGS[kind])
    return short * (1 + len(_VOWELS) * len(_LONG_MIDDLES))


def _shuffled(index: int, size: int, key: str) -> int:
    """Where ``index`` goes in a fixed random order of ``range(size)``, without making that order.

    A Feistel network permutes the numbers of ``2 * half`` bits; results past the end are put in
    again until they fall inside, which keeps it one to one.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while True:
        left, right = index >> half, index & low
        for turn in range(4):
            left, right = right, left ^ (_mix(key, turn, right) & low)
        index = left << half | right
        if index < size:
            return index


@cache
def _key_bytes(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _mix(key: str, turn: int, value: int) -> int:
    data = bytes((turn,)) + value.to_bytes(8, "little")
    digest = hashlib.blake2b(data, key=_key_bytes(key), digest_size=8).digest()
    return int.from_bytes(digest, "little")
