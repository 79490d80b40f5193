"""Random programs under random scripts, against enumeration, the oracle and compiled code.

Run ``python -m tests.fuzz --n 2000 --seed 0 --jobs 2``. Every failure prints a reproducer: the
program's text (see :mod:`tests.programs_ir`), the script and the seed of the case.

The fuzz must be able to fail. ``--plant NAME`` breaks perfkit on purpose, in this process only
(:mod:`tests.fuzz.plants`); each of these must be reported within a few hundred cases:

- ``drop-anti``: anti dependences (read, then write) are forgotten;
- ``ge-for-gt``: a loop level that does not reverse a dependence is taken to satisfy it, though it
  may leave pairs equal (lexicographic >= where > is meant);
- ``marks-unproved``: parallel, vector and jam marks are accepted as they come;
- ``jam-outer``: unroll-and-jam forgets that copies meet in the loops inside;
- ``too-strict``: every reversal of a loop is refused, legal or not.
"""
