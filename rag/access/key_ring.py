"""The API keys that are in force: those of the settings, and those of a file that may change at any moment.

The file is looked at when a credential is, at most once in `LOOK_EVERY_S`: a key that was revoked is dead on all
workers within that time, and a server without keys spends nothing on them. It must not know how a key is carried.
"""

import hmac
import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path

from rag.api_keys import ApiKey, digest, id_of, looks_like_key

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
LARGEST_FILE_BYTES = 16 * 1024 * 1024
"""Some 60,000 keys. What is larger is no file of keys."""
_NO_KEY = ApiKey("", bytes(32), frozenset())


def read_keys(path: Path) -> list[ApiKey]:
    """The keys of the file, none where there is no file. Raises `ValueError` for a damaged one, and `OSError`."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return []
    if len(content) > LARGEST_FILE_BYTES:
        raise ValueError("it is too large to be a file of keys")
    keys = []
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            try:
                keys.append(ApiKey.from_line(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                # What stands there may be a key that somebody pasted: only its place is told.
                raise ValueError(f"line {number} is no key") from None
    return keys


class KeyRing:
    """Every key in force in one worker."""

    def __init__(self, *, given: Iterable[ApiKey], file: Path) -> None:
        """`given` are the keys of the settings. Never raises for the file: it is named in the log."""
        self._given = tuple(given)
        self._file = file
        self._taken = ""
        """Inode, time and size of the file when it was read last."""
        self._refused = ""
        """Why it could not be read since."""
        self._look_again_at = 0.0
        self._take([])
        self._look()

    def find(self, presented: str) -> ApiKey | None:
        """The key that was presented, if it is in force. Takes the same time for a wrong key as for none of ours."""
        self._look()
        hashed, found = digest(presented), None
        if looks_like_key(presented):
            kept = self._by_id.get(id_of(presented) or "", _NO_KEY)
            found = kept if hmac.compare_digest(kept.digest, hashed) else None
        if found is None:
            for kept in self._without_id:
                if hmac.compare_digest(kept.digest, hashed):
                    found = kept
        return None if found is None or found.expired() else found

    def opens_admin(self) -> bool:
        """Whether some key, expired or not, is one for the admin routes."""
        self._look()
        return self._opens_admin

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._look_again_at:
            return
        self._look_again_at = now + LOOK_EVERY_S
        try:
            seen = self._file.stat()
            now_there = f"{seen.st_ino} {seen.st_mtime_ns} {seen.st_size}"
        except OSError:
            now_there = "cannot be looked at"  # or is not there, which reading it tells apart
        if now_there == self._taken and not self._refused:
            return
        try:
            keys = read_keys(self._file)
        except (ValueError, OSError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            if reason != self._refused:
                log.error("API keys not read, the old ones stay", extra={"path": str(self._file), "reason": reason})
            self._refused = reason
            return
        self._taken, self._refused = now_there, ""
        self._take(keys)
        if now_there != "cannot be looked at":
            log.info("API keys read", extra={"keys": len(keys)})

    def _take(self, from_file: list[ApiKey]) -> None:
        keys = [*self._given, *from_file]
        self._by_id = {key.id: key for key in keys if key.id}
        self._without_id = [key for key in keys if not key.id]
        self._opens_admin = any("admin" in key.scopes for key in keys)
