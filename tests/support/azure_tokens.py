"""Access tokens as the emulated login gives them and the emulated models believe them: an end, and a signature over it.

Shared by two processes that know nothing of each other but the resource's key.
"""

import hashlib
import hmac
import secrets
import time


def new_token(api_key: str, *, life_s: float) -> str:
    """Unlike any other, in force for `life_s` seconds."""
    said = f"{time.time() + life_s:.3f}~{secrets.token_hex(8)}"
    return f"{said}~{_signature(said, api_key)}"


def is_in_force(token: str, api_key: str) -> bool:
    said, _, signature = token.rpartition("~")
    if not hmac.compare_digest(signature.encode(), _signature(said, api_key).encode()):
        return False
    return time.time() < float(said.split("~")[0])


def _signature(said: str, api_key: str) -> str:
    return hmac.new(api_key.encode(), said.encode(), hashlib.sha256).hexdigest()
