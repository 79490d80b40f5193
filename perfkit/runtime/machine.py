"""What the machine offers this process: cores, caches, vector width. Frozen, usable in keys."""

from __future__ import annotations

from dataclasses import dataclass

from perfkit.errors import ExtensionMissing

try:
    from perfkit import _cpu
except ImportError as error:  # a source tree whose extension was never built
    raise ExtensionMissing(
        "perfkit._cpu, the compiled part of perfkit, cannot be imported "
        f"({error}): install perfkit with `pip install .` from its source tree"
    ) from error


@dataclass(frozen=True, slots=True)
class Cache:
    """One level of data or unified cache, as one core sees it.

    Attributes:
        level: 1 is nearest to the core.
        bytes: capacity.
        line: line size in bytes.
        shared_by: logical cores of this process that share it.
    """

    level: int
    bytes: int
    line: int
    shared_by: int


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine as this process may use it (its affinity mask counts, not the whole box).

    Attributes:
        cpu: model name with family, model and stepping.
        logical_cores, physical_cores: within the affinity mask.
        caches: data and unified caches, nearest first; empty when unknown.
        simd_bytes: widest usable vector register.
        isa: instruction sets that processor and operating system both support.
        page_bytes: size of a page.
        huge_page_bytes: size of a transparent huge page, 0 without them.
        huge_pages: "always", "madvise", "never", or "" when unknown.
    """

    architecture: str
    cpu: str
    logical_cores: int
    physical_cores: int
    caches: tuple[Cache, ...]
    simd_bytes: int
    isa: tuple[str, ...]
    page_bytes: int
    huge_page_bytes: int = 0
    huge_pages: str = ""

    @classmethod
    def detect(cls) -> Machine:
        """Probe this machine; takes well under a millisecond."""
        found = _cpu.probe()
        return cls(
            architecture=found["architecture"],
            cpu=found["cpu"],
            logical_cores=found["logical_cores"],
            physical_cores=found["physical_cores"],
            caches=tuple(
                Cache(c["level"], c["bytes"], c["line"], c["shared_by"]) for c in found["caches"]
            ),
            simd_bytes=found["simd_bytes"],
            isa=tuple(found["isa"]),
            page_bytes=found["page_bytes"],
            huge_page_bytes=found["huge_page_bytes"],
            huge_pages=found["huge_pages"],
        )

    def cache(self, level: int) -> Cache | None:
        """The cache of a level, or None where the machine has none or hides it."""
        return next((cache for cache in self.caches if cache.level == level), None)

    @property
    def line_bytes(self) -> int:
        """Size of a cache line in bytes; 64 when unknown."""
        return self.caches[0].line if self.caches else 64

    def isa_key(self) -> str:
        """Text that is equal where the same machine code runs: the part that matters to a build."""
        return f"{self.architecture}; {self.cpu}; {' '.join(self.isa)}"

    def key(self) -> str:
        """Text that is equal where tuning results carry over: :meth:`isa_key`, cores and caches."""
        caches = " ".join(f"L{c.level}={c.bytes}/{c.line}x{c.shared_by}" for c in self.caches)
        cores = f"{self.logical_cores} cores of {self.physical_cores}"
        return f"{self.isa_key()}; {cores}; {caches}"
