"""Runs a C function as gcc compiles it, and its region as the interpreter understands it."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perfkit.codegen import interpret
from perfkit.frontends.c import CFile, CRegion, parse_file

Arguments = Mapping[str, Any]


def parse(folder: Path, source: str, name: str = "program.c", **options: Any) -> CFile:
    path = folder / name
    path.write_text(source)
    return parse_file(path, **options)


def only_region(folder: Path, source: str, **options: Any) -> CRegion:
    (region,) = parse(folder, source, **options).regions
    return region


def compiled(folder: Path, source: str, function: str = "f", flags: tuple[str, ...] = ()) -> Any:
    """The function of the source, loaded."""
    path, library = folder / "native.c", folder / f"native{len(list(folder.iterdir()))}.so"
    path.write_text(source)
    command = ["gcc", "-O1", "-w", "-ffp-contract=off", "-shared", "-fPIC", *flags]
    subprocess.run([*command, str(path), "-o", str(library), "-lm"], check=True)
    found = getattr(ctypes.CDLL(str(library)), function)
    found.restype = None
    return found


_CTYPES = {
    "float64": ctypes.c_double, "float32": ctypes.c_float, "int32": ctypes.c_int,
    "int64": ctypes.c_int64, "uint32": ctypes.c_uint32, "uint64": ctypes.c_uint64,
    "int8": ctypes.c_int8, "uint8": ctypes.c_uint8,
}  # fmt: skip


def call(function: Any, arguments: Arguments) -> None:
    """Call with arguments in the order of the C parameters; NumPy scalars keep their types."""
    actual = []
    for value in arguments.values():
        if isinstance(value, np.ndarray):
            actual.append(ctypes.c_void_p(value.ctypes.data))
        elif isinstance(value, np.generic):
            actual.append(_CTYPES[str(value.dtype)](value.item()))
        elif isinstance(value, float):
            actual.append(ctypes.c_double(value))
        else:
            actual.append(ctypes.c_int(value))
    function(*actual)


def interpreted(region: CRegion, arguments: Arguments) -> None:
    """Run the region's SCoP on the same memory."""
    assert region.scop is not None, region.error
    scop = region.scop
    sizes = {p: int(arguments[p]) for p in scop.parameters}
    assert scop.context.contains(sizes), f"{sizes} is outside {scop.context}"
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for a in scop.arrays:
        if a.local:
            continue
        shape = tuple(e.evaluate(sizes) for e in a.shape)
        given = arguments.get(a.name)
        if given is None:
            arrays[a.name] = np.zeros(shape, a.dtype)  # a variable of the function
        else:
            count = int(np.prod(shape))
            arrays[a.name] = given.reshape(-1)[:count].reshape(shape)
    scalars = {s.name: arguments[s.name] for s in scop.scalars}
    interpret.run(scop, sizes, arrays, scalars)


def same(folder: Path, source: str, arguments: Arguments, **options: Any) -> CRegion:
    """Assert that gcc and the interpreter compute the same bits; returns the region."""
    region = only_region(folder, source, **options)
    flags = tuple(f"-D{d}" for d in options.get("defines", ()))
    mine = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    native = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    call(compiled(folder, source, flags=flags), native)
    interpreted(region, mine)
    for name, value in native.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(mine[name], value, err_msg=name)
    return region
