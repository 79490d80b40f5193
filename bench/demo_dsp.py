"""``python -m bench.demo_dsp``: one ST-DiT block on two CPU ranks, three ways, checked and timed.

Without torch there is nothing to show: one line, status 0.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec


def main() -> int:
    """Run it; 0 when every result is right (or torch is missing)."""
    if find_spec("torch") is None:
        sys.stdout.write("sequence parallelism: needs torch (pip install '.[torch]'), left out\n")
        return 0
    shown: int = import_module("bench.demo_block").show()
    return shown


if __name__ == "__main__":
    sys.exit(main())
