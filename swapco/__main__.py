"""``python -m swapco``: see doctor.py."""

import sys

from .doctor import main

if __name__ == "__main__":
    sys.exit(main())
