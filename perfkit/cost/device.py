"""What the analytic model needs to know about a processor, in seconds and bytes.

Cache sizes, cores and vector width come from :class:`perfkit.runtime.machine.Machine`. What the
operating system does not tell has documented defaults, typical of server cores of the years 2019
to 2024 (per-level figures: A. Fog, *Instruction tables*; C. Hofmann et al., *Execution-cache-memory
modelling*, 2019). They need only be right relative to each other, since schedules are ranked.
"""

from __future__ import annotations

from dataclasses import dataclass

from perfkit.runtime.machine import Machine

HERTZ = 3.0e9
"""Clock under vector load, where the machine hides it."""

CORE_RATES = (28.0, 13.0)
"""Bytes per cycle that one core can move in from beyond L1, and from beyond L2 (streams)."""

DRAM_RATE = 4.0
"""Bytes per cycle that one core can stream from memory."""

SHARED_SCALE = 2.0
"""How many cores' worth of streaming a shared level or memory can serve at once."""

LATENCY_FACTOR = (1.2, 1.4, 1.6)
"""How much dearer a line is than in a stream where no prefetcher helps (large strides)."""

BARRIER = 1.1e-6
"""Seconds that threads take to start a shared loop and meet behind it, for two threads."""

HUGE_PAGE = 2 << 20
"""Bytes of a transparent huge page, taken for granted unless the system says "never"."""

DEFAULT_CACHES = ((32 << 10, 1), (512 << 10, 1), (16 << 20, 2))
"""Bytes and sharing cores by level, where the machine hides its caches."""


@dataclass(frozen=True, slots=True)
class Level:
    """A cache and the link that fills it.

    Attributes:
        bytes: capacity.
        core_rate: bytes per second that one core can fill it with, as a stream.
        total_rate: the same for all cores together.
        scattered: how many times longer a line takes that is not part of a stream.
        shared: whether the cores of this process share it.
    """

    bytes: int
    core_rate: float
    total_rate: float
    scattered: float
    shared: bool


@dataclass(frozen=True, slots=True)
class Device:
    """A processor as the model sees it; every default is documented in this module.

    Attributes:
        threads: threads that a parallel loop runs on.
        simd_bytes: width of a vector register; 8 without vectors.
        registers: architectural vector registers.
        fma_per_cycle, loads_per_cycle, stores_per_cycle: vector instructions of one core.
        fma_latency: cycles from one fused multiply-add to the next that needs its result.
        add_latency: the same for additions, which scalar sums wait for (products run ahead).
        hertz: cycles per second.
        levels: caches, nearest first; each knows the rate at which it is filled from outside.
        barrier: seconds per start and end of a parallel loop.
        page_bytes, tlb_entries: pages whose address the first level of the TLB remembers.
        page_fault: seconds for the first touch of 4 KiB of fresh memory.
    """

    threads: int
    simd_bytes: int
    registers: int
    hertz: float
    levels: tuple[Level, ...]
    fma_per_cycle: float = 2.0
    loads_per_cycle: float = 2.0
    stores_per_cycle: float = 1.0
    fma_latency: float = 4.0
    add_latency: float = 3.0
    barrier: float = BARRIER
    page_bytes: int = HUGE_PAGE
    tlb_entries: int = 64
    page_fault: float = 2.5e-7

    @classmethod
    def of(cls, machine: Machine, threads: int | None = None) -> Device:
        """The device that ``machine`` is, for kernels of so many threads (default: all cores)."""
        count = max(1, threads or machine.logical_cores)
        found = [(c.bytes, c.shared_by) for c in machine.caches] or list(DEFAULT_CACHES)
        levels: list[Level] = []
        for k, (size, shared_by) in enumerate(found):
            last = k == len(found) - 1
            rate = (DRAM_RATE if last else CORE_RATES[min(k, len(CORE_RATES) - 1)]) * HERTZ
            # The link of a level is shared when the level it comes from is.
            outside_shared = last or found[k + 1][1] > 1
            scale = min(count, SHARED_SCALE) if outside_shared else count
            scattered = LATENCY_FACTOR[min(k, len(LATENCY_FACTOR) - 1)]
            levels.append(Level(size, rate, rate * scale, scattered, shared_by > 1))
        wide = any(name.startswith("avx512") for name in machine.isa)
        return cls(
            threads=count,
            simd_bytes=machine.simd_bytes or 8,
            registers=32 if wide or machine.architecture.startswith(("aarch64", "arm")) else 16,
            hertz=HERTZ,
            levels=tuple(levels),
            barrier=BARRIER * (1.0 if count <= 2 else 1.0 + 0.2 * count.bit_length()),
            # big arrays get huge pages where the system offers them (NumPy asks for them)
            page_bytes=machine.page_bytes if machine.huge_pages == "never" else HUGE_PAGE,
        )


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as the model of Triton kernels sees it; the defaults are an NVIDIA H200 (SXM).

    Peak rates and sizes are those of NVIDIA's H200 datasheet and of the Hopper architecture
    whitepaper (2022); latencies and the rate of the second-level cache follow published
    micro-benchmarks of Hopper (W. Luo et al., *Benchmarking and dissecting the Nvidia Hopper GPU
    architecture*, 2024). None was measured here.

    Attributes:
        processors: streaming multiprocessors.
        hertz: cycles per second under load.
        float32, float64: floating-point operations per second of all scalar units.
        matrix32, matrix64: the same through ``tl.dot``; IEEE single precision has no tensor core.
        matrix_rows: rows that a tile of ``tl.dot`` needs in single precision to reach that rate;
            below, half of it (``wgmma`` takes 64).
        memory_rate, cache_rate: bytes per second from memory, and from the second-level cache.
        cache_bytes: capacity of that cache.
        memory_latency, cache_latency: seconds of a load from there.
        registers, threads, programs: limits of one multiprocessor (32-bit registers; resident).
        warps: warps that keep one multiprocessor's units busy.
        shared: bytes of shared memory that one program may have.
        float32_bytes: what an element of a float32 array takes in memory.
        launch: seconds that the host takes for one launch, Triton's Python code included.
        start: seconds on the GPU from one kernel to the next that waits for it.
    """

    processors: int = 132
    hertz: float = 1.7e9
    float32: float = 60e12
    float64: float = 30e12
    matrix32: float = 30e12
    matrix64: float = 45e12
    memory_rate: float = 4.0e12
    cache_rate: float = 5.5e12
    cache_bytes: int = 50 << 20
    memory_latency: float = 480e-9
    cache_latency: float = 160e-9
    registers: int = 65536
    threads: int = 2048
    programs: int = 32
    warps: int = 16
    matrix_rows: int = 0
    shared: int = 227 << 10
    float32_bytes: int = 4
    launch: float = 12e-6
    start: float = 2e-6

    @classmethod
    def half(cls) -> Gpu:
        """The same where float32 arrays are half precision in memory: products use tensor cores."""
        return cls(matrix32=600e12, matrix_rows=64, float32_bytes=2)


__all__ = ["Device", "Gpu", "Level"]
