"""`python -m strongroom` is the `strongroom` command."""

import sys

from strongroom.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
