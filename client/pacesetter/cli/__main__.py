"""`python -m pacesetter.cli` is the command `pacesetter`."""

import sys

from pacesetter.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
