"""``python -m perfkit``: the command line."""

import sys

from perfkit.cli import main

sys.exit(main())
