"""What the site does not answer, from the command line: `python -m rag.gaps [--since 30d]`."""

import sys

from rag.ops.gaps import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
