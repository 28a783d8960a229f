"""The schema of a PostgreSQL, from the command line: `python -m rag.database migrate | status | undo | import`."""

import sys

from rag.ops.database import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
