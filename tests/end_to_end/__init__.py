"""Every test program through the whole pipeline: both frontends, many schedules, compiled code.

``python -m tests.end_to_end --scripts 20`` runs all of it; :mod:`tests.end_to_end.test_programs`
is the part that the test suite runs each time. For each program and frontend the schedules are the
original order, every candidate of the search, and random legal scripts. All variants of a program
become one shared object. Without contraction of multiplications and additions a strict schedule
must give the very bits of the original; a schedule under ``fp="reassociate"`` the same within the
program's tolerance.
"""
