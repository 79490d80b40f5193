"""A compiler and a way to make kernels from a line of C."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perfkit import config
from perfkit.runtime.build import Toolchain, compile_c
from perfkit.runtime.kernel import Kernel
from perfkit.runtime.signature import Parameter, Signature

MakeKernel = Callable[..., Kernel]


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[config.Settings]:
    """Settings with a cache folder of this test's own, and quick compiles."""
    with config.scope(cache_dir=tmp_path / "cache", cflags="-O1", lock_timeout=20.0) as chosen:
        yield chosen


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    return Toolchain.detect(config.Settings(cflags="-O1"))


@pytest.fixture
def make_kernel(settings: config.Settings, toolchain: Toolchain) -> MakeKernel:
    """``make_kernel(body, parameters, sizes)``: in ``body`` the arguments have their names."""

    def make(body: str, parameters: list[Parameter], sizes: str = "", **options: Any) -> Kernel:
        names = tuple(sizes.split())
        signature = Signature("f", tuple(parameters), names)
        lines = [f"  int64_t {name} = *(int64_t *)args[{i}];" for i, name in enumerate(names)]
        pointers = [p for p in parameters if p.kind != "size"]
        for i, p in enumerate(pointers, len(names)):
            c_type = {"float64": "double", "float32": "float", "bool": "_Bool"}.get(
                p.dtype, f"{p.dtype}_t"
            )
            if p.dtype == "complex128":
                c_type = "double _Complex"
            if p.dtype in ("float16", "bfloat16"):
                c_type = "uint16_t"
            lines.append(f"  {c_type} *{p.name} = args[{i}];")
        source = "\n".join(
            ["#include <stdint.h>", "int64_t f_call(void **args) {", *lines, body, "}"]
        )
        path = compile_c(source, toolchain=toolchain, settings=settings)
        return Kernel(signature, path, source, **options)

    return make
