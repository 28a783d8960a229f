"""API keys, from the command line: `python -m rag.keys new | list | rotate | revoke`."""

import sys

from rag.ops.keys import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
