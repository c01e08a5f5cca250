"""`python -m tabzoo COMMAND ...`: the same as `tabzoo COMMAND ...`."""

import sys

from tabzoo.cli import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m tabzoo"))
