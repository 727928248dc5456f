"""`python -m pybernetes` is the p8s command."""

from __future__ import annotations

import sys

from pybernetes.cli import main

if __name__ == "__main__":
    sys.exit(main())
