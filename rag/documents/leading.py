"""One process that works on uploads, whatever the number of workers: started by whichever of them gets the lease.

The lease is a lock on a file that the child inherits and holds for as long as it lives, so that a killed child frees it
at once. Knows nothing of what the child does.
"""

import asyncio
import fcntl
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from rag.documents.library import Library
from rag.settings import Settings

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "indexer", "ingest")
LOOK_EVERY_S = 1.0
AGAIN_AFTER_S = 5.0
"""After a child that failed."""
PURGE_AFTER_S = 60.0
"""How long removed text may wait for company before segments are written anew."""
STOP_S = 2.0


class Ingest:
    """Sees to it that somebody works while there is work. One in each worker."""

    def __init__(self, library: Library, command: Sequence[str]) -> None:
        """`command` starts the child; it ends by itself when there is nothing left to do, or its parent is gone."""
        self.library = library
        self._command = list(command)
        self._child: subprocess.Popen[bytes] | None = None
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """There is work: do not wait for the next look."""
        self._awake.set()

    async def lead_forever(self) -> None:
        """Start the child whenever there is work and nobody works, until cancelled."""
        try:
            while True:
                wait_s = LOOK_EVERY_S
                try:
                    if self._ended_badly():
                        wait_s = AGAIN_AFTER_S
                    elif await asyncio.to_thread(self.library.has_work, purge_after_s=PURGE_AFTER_S):
                        await asyncio.to_thread(self._start)
                except OSError as error:
                    log.warning("uploads not worked on", extra={"reason": str(error)})
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._awake.wait(), wait_s)
                self._awake.clear()
        finally:
            self._stop()

    def _start(self) -> None:
        lease = os.open(self.library.folder / ".ingest.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            # A child of its own session: what a terminal sends to the server is not meant for it.
            self._child = subprocess.Popen(  # noqa: S603 - the command is ours
                self._command, stdin=subprocess.DEVNULL, pass_fds=[lease], start_new_session=True
            )
        finally:
            os.close(lease)

    def _ended_badly(self) -> bool:
        code = self._child.poll() if self._child else None
        if code is None:
            return False
        self._child = None
        if code:
            log.warning("ingest process ended, it is started again", extra={"exit_code": code})
        return bool(code)

    def _stop(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()


def ingest_of(settings: Settings) -> Ingest | None:
    """What the settings ask for; None where nothing can be uploaded."""
    if settings.uploads == "off":
        return None
    library = Library(settings.state_dir / "documents", keeps_originals=settings.keep_uploads)
    return Ingest(library, [*COMMAND, "--output", str(settings.vector_db_path.absolute())])
