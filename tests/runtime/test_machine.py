from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from perfkit import _cpu, config
from perfkit.runtime.machine import Machine


def test_detected_machine_is_plausible() -> None:
    machine = Machine.detect()
    assert machine.logical_cores == config.available_cores()
    assert 1 <= machine.physical_cores <= machine.logical_cores
    assert machine.simd_bytes in (8, 16, 32, 64)
    assert machine.page_bytes >= 4096
    assert machine.line_bytes in (32, 64, 128, 256)
    assert [c.level for c in machine.caches] == sorted(c.level for c in machine.caches)
    assert all(c.bytes > 0 and 1 <= c.shared_by <= machine.logical_cores for c in machine.caches)
    assert machine.cache(99) is None


def test_flags_agree_with_the_kernel() -> None:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        pytest.skip("no /proc/cpuinfo")
    if "flags" not in text:
        pytest.skip("not x86")
    flags = text.partition("flags")[2].splitlines()[0].split()
    isa = Machine.detect().isa
    for name in ("avx2", "fma", "avx512f"):
        assert (name in isa) == (name in flags)
    assert ("amx_tile" in isa) == ("amx_tile" in flags)


def test_keys_depend_on_what_matters() -> None:
    machine = Machine.detect()
    assert Machine.detect().key() == machine.key()
    fewer = replace(machine, logical_cores=machine.logical_cores + 1)
    assert fewer.key() != machine.key()
    assert fewer.isa_key() == machine.isa_key()
    assert replace(machine, isa=()).isa_key() != machine.isa_key()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")
def test_affinity_mask_counts() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from perfkit.runtime.machine import Machine; m = Machine.detect();"
        "print(m.logical_cores, m.physical_cores, {c.shared_by for c in m.caches} <= {1})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "True"]


def test_clock_never_goes_back() -> None:
    times = [_cpu.now_ns() for _ in range(1000)]
    assert times == sorted(times)


def test_timing_refuses_null_addresses() -> None:
    with pytest.raises(ValueError, match="null"):
        _cpu.time_calls(0, 0)
