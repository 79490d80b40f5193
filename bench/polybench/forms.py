"""Forms of a program's C text that peers are compiled from, and the wrapper that calls them."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping

from bench.polybench.registry import Program, c_arguments

CALL = "bench_call"
_C_NAMES = {
    ctypes.c_int: "int",
    ctypes.c_double: "double",
    ctypes.c_float: "float",
    ctypes.c_int64: "int64_t",
    ctypes.c_void_p: "void *",
}


def returns_value(program: Program) -> bool:
    """Whether the C function returns a double."""
    return re.search(rf"\bdouble\s+{program.c_function}\(", program.c_path.read_text()) is not None


def wrapper(program: Program) -> str:
    """C text of ``int64_t bench_call(void **)``: every candidate is then timed by the same loop.

    A separate translation unit, so the kernel is compiled as it stands and never inlined.
    """
    size = next(iter(program.sizes))
    given = c_arguments(program, program.sizes[size], program.arguments(size))
    types = [_C_NAMES[type(value)] for value in given]
    result = "double" if returns_value(program) else "void"
    values = ", ".join(
        f"a[{i}]" if name == "void *" else f"*({name} *)a[{i}]" for i, name in enumerate(types)
    )
    call = f"{program.c_function}({values});"
    if result == "double":
        call = f"*(double *)a[{len(types)}] = {call}"
    return (
        "#include <stdint.h>\n"
        f"{result} {program.c_function}({', '.join(types)});\n"
        f"int64_t {CALL}(void **a)\n{{\n    {call}\n    return 0;\n}}\n"
    )


def with_restrict(text: str, function: str) -> str:
    """The text with every pointer parameter of ``function`` qualified ``restrict``."""
    before, parameters, after = _split(text, function)
    return before + ", ".join(map(_restrict, parameters)) + after


def with_fixed_sizes(text: str, function: str, sizes: Mapping[str, int]) -> str:
    """The text with the sizes as compile-time constants, as PolyBench itself has them.

    The parameters stay, under other names, so the call does not change.
    """
    before, parameters, after = _split(text, function)
    given = [
        f"{parameter}_given"
        if re.fullmatch(r"int \w+", parameter) and _name(parameter) in sizes
        else parameter
        for parameter in parameters
    ]
    constants = ", ".join(f"{name} = {value}" for name, value in sizes.items())
    start = _header(text, function).start()
    return f"{before[:start]}enum {{ {constants} }};\n{before[start:]}{', '.join(given)}{after}"


def _name(parameter: str) -> str:
    return parameter.rpartition(" ")[2]


def _restrict(parameter: str) -> str:
    if "restrict" in parameter:
        return parameter
    # A product in an array bound is no pointer.
    if "*" in parameter.partition("[")[0]:
        return re.sub(r"\*\s*(?=\w+\)?)", "*restrict ", parameter, count=1)
    return parameter.replace("[", "[restrict ", 1)


def _header(text: str, function: str) -> re.Match[str]:
    found = re.search(rf"^\w+ {function}\(", text, re.M)
    if found is None:
        raise ValueError(f"no definition of {function}")
    return found


def _split(text: str, function: str) -> tuple[str, list[str], str]:
    """Text before the parameters, the parameters, text from the closing parenthesis on."""
    start = _header(text, function).end()
    depth, begin, parameters = 0, start, []
    for position in range(start, len(text)):
        mark = text[position]
        if mark in ",)" and depth == 0:
            parameters.append(" ".join(text[begin:position].split()))
            begin = position + 1
            if mark == ")":
                return text[:start], parameters, text[position:]
        depth += (mark in "([") - (mark in ")]")
    raise ValueError(f"the parameters of {function} do not end")
