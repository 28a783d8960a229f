"""What a browser does with a challenge in ALTCHA's form."""

import hashlib
from typing import Any


def solved(challenge: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """The challenge with the number that solves it, found by trying."""
    for number in range(challenge["maxnumber"] + 1):
        if hashlib.sha256(f"{challenge['salt']}{number}".encode()).hexdigest() == challenge["challenge"]:
            return {**challenge, "number": number, **changed}
    raise AssertionError("no number solves the challenge")
