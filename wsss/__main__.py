"""`python -m wsss`."""

import sys

from wsss.cli import program

if __name__ == "__main__":
    sys.exit(program())
