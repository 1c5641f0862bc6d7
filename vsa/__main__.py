"""`python -m vsa`: the same as the command `vsa`."""

import sys

from vsa.cli import main

if __name__ == "__main__":
    sys.exit(main())
