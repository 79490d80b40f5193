"""``python -m bench.dsp``; see :mod:`bench.dsp.command`."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

if __name__ == "__main__":
    if find_spec("torch") is None:
        sys.exit("bench.dsp needs torch: pip install '.[torch]'")
    sys.exit(import_module("bench.dsp.command").main())
