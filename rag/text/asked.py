"""Whether two questions are the same, by the letter. Pure."""

import re
import unicodedata


def normalised(question: str) -> str:
    """The question without what cannot change its answer: case, forms of one character, blanks, marks at its end.

    Words stay as they are, in their order: "not" and numbers make another question.
    """
    folded = unicodedata.normalize("NFKC", question).casefold()
    return re.sub(r"\s+", " ", folded).strip().rstrip("?!. ")
