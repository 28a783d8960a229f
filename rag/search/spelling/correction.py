"""What a misspelled word of a question is taken for. Knows words, not files or passages."""

from collections.abc import Callable, Iterable
from itertools import combinations

from rag.search.spelling.vocabulary import Vocabulary, is_kept, shortened

TWO_ERRORS_FROM = 8
"""Letters from which on a word may have two errors."""
ANY_ERROR_FROM = 5
"""Letters from which on a word may have an error that is no swap: shorter ones have too many neighbours."""
TWO_LEFT_OUT_FROM = 10
"""Letters from which on a word is also looked up with two of its letters left out."""
MOST_CORRECTED = 8
"""Words of one question: a text of nothing but unknown words is in another language, or an attack."""


def completed(
    asked: Iterable[tuple[str, ...]], *, written: Iterable[str], known: Callable[[tuple[str, ...]], bool],
    forms_of: Callable[[str], tuple[str, ...]], vocabulary: Vocabulary,
) -> list[tuple[str, ...]]:  # fmt: skip
    """`asked` as `Lexical.words` gives it, where each word that is not `known` has those of the word that may be meant
    as further forms. `written` are the question's words before they were stemmed, `forms_of` stems one.
    """
    asked = list(asked)
    forms = set(asked)
    wanted = [word for word in dict.fromkeys(written) if is_kept(word) and forms_of(word) in forms]
    unknown = [word for word in wanted if not known(forms_of(word))][:MOST_CORRECTED]
    meant = {}
    for word in unknown:
        if (found := correction(word, vocabulary)) is not None:
            meant[forms_of(word)] = forms_of(found)
    if 2 * len(meant) < len(unknown):
        # Whose words mostly resemble none here speaks of something else, or another language: a likeness is chance.
        return asked
    return [(*one, *meant.get(one, ())) for one in asked]


def correction(word: str, vocabulary: Vocabulary) -> str | None:
    """The word that `word` is most likely a misspelling of: the nearest, then the most frequent; None without one.

    The first letter is hardly ever wrong, and holding to it keeps names of other things apart.
    """
    forms = {word, *shortened(word)}
    if len(word) >= TWO_LEFT_OUT_FROM:
        forms |= {"".join(word[i] for i in range(len(word)) if i not in pair)
                  for pair in combinations(range(len(word)), 2)}  # fmt: skip
    allowed = 2 if len(word) >= TWO_ERRORS_FROM else 1
    best: tuple[int, int, str] | None = None
    for place, other in vocabulary.sharing(sorted(forms)):
        if other[0] != word[0] or other == word:
            continue
        if len(word) < ANY_ERROR_FROM and not (len(other) == len(word) and sorted(other) == sorted(word)):
            continue
        errors = distance(word, other)
        if errors <= allowed and (best is None or (errors, place) < best[:2]):
            best = (errors, place, other)
    return best[2] if best else None


def distance(one: str, other: str) -> int:
    """Letters to add, leave out, change or swap with their neighbour (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        before_last, before, row = before, row, [i]
        for j, its in enumerate(other, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != its))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == its:
                cost = min(cost, before_last[j - 2] + 1)
            row.append(cost)
    return row[-1]
