"""Generated C as text: what a change of the generator does to three known kernels.

``NAME.script`` is the schedule and ``NAME.c`` what comes out of it. After a wanted change:
``python -m pytest tests/golden --update-golden``, and read the difference.
"""
