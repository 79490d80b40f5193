"""From a scheduled program to a callable kernel: generate, compile through the cache, load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from perfkit import config
from perfkit.codegen.openmp import Options, generate_kernel
from perfkit.codegen.target import Target
from perfkit.ir.isl import Polyhedra
from perfkit.runtime.build import Toolchain
from perfkit.runtime.call import Precondition
from perfkit.runtime.kernel import Kernel
from perfkit.runtime.machine import Machine
from perfkit.runtime.signature import Signature
from perfkit.runtime.store import KernelCache, compile_cached
from perfkit.schedule.state import State


@dataclass(frozen=True)
class Builder:
    """What turns sources into kernels on this machine; one per process is enough."""

    settings: config.Settings
    toolchain: Toolchain
    machine: Machine
    cache: KernelCache

    @staticmethod
    def detect(settings: config.Settings) -> Builder:
        """Raises CompilerNotFound when there is no C compiler."""
        return Builder(
            settings, Toolchain.detect(settings), Machine.detect(), KernelCache(settings)
        )

    def source(self, state: State, signature: Signature, poly: Polyhedra | None = None) -> str:
        """The C file of ``state`` for this machine."""
        target = Target(self.machine.simd_bytes or 16, self.settings.threads)
        options = Options(fp=state.fp, target=target)
        return generate_kernel(state.scop, state.tree, signature, options, poly)

    def kernel(
        self,
        signature: Signature,
        source: str,
        schedule: str,
        *,
        explain: Callable[[], str] | str = "",
        precondition: Precondition | None = None,
    ) -> Kernel:
        """Compile (or find in the cache) and load."""
        entry = compile_cached(
            source,
            cache=self.cache,
            toolchain=self.toolchain,
            machine=self.machine,
            metadata={"name": signature.name, "schedule": schedule},
        )
        return Kernel(
            signature, entry.so_path, source, schedule, explain=explain, precondition=precondition
        )
