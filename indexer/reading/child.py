"""A reading process: file names in, documents out, one line of JSON each. Never imports a format before it is needed.

It runs `python -m indexer.reading.child SECONDS MEMORY_BYTES FILE_BYTES`, asks nothing of the network and writes no
file. A request is `{"path", "source", "site_url", "with_unpublished"?}`, the answer `{"document"}` or
`{"skipped": reason}`. An answer with `"spent": true` is its last: memory that ran out once is not to be trusted again.
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from indexer.reading.document import read
from rag.errors import SourceUnreadable


def main(seconds: int, memory_bytes: int, file_bytes: int) -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)  # what a parser prints must not be taken for an answer
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        # The limit counts from the start of the process; the wall clock is the parent's business.
        until = int(used.ru_utime + used.ru_stime) + seconds + 1
        resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))
        answer = _answer(json.loads(line), memory_bytes, file_bytes)
        answers.write(answer + "\n")
        answers.flush()
        if '"spent"' in answer[:10]:
            return


def _answer(request: dict[str, Any], memory_bytes: int, file_bytes: int) -> str:
    try:
        document = read(
            Path(request["path"]), source=request["source"], site_url=request["site_url"], limit_bytes=file_bytes,
            with_unpublished=bool(request.get("with_unpublished")),
        )  # fmt: skip
        return json.dumps({"document": document.to_json()}, ensure_ascii=True)
    except SourceUnreadable as error:
        return json.dumps({"skipped": str(error)})
    except MemoryError:
        return json.dumps({"spent": True, "skipped": f"needs more than {memory_bytes // 1024**2} MiB memory to read"})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
