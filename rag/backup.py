"""Backups, from the command line: `python -m rag.backup create | list | verify | restore`."""

import sys

from rag.ops.backup import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
