"""Machine, compiler, kernel cache, callable kernels and fair measuring; knows no schedule.

Import the submodules; this package imports none of them, so that the command line starts fast.
"""
