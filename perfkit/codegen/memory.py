"""Memory of the local arrays that generated code keeps on the heap: one block for all of them.

A block that was just mapped costs a page fault per page, often more than what is computed in it, so
the block of the last call is kept for the next one. Whoever takes it owns it: calls from several
threads each get memory of their own, and the last one back leaves its block. Blocks above 64 MiB
are returned to the system.
"""

from __future__ import annotations

from collections.abc import Sequence

from perfkit.codegen.ctext import C_TYPES, Helpers, Writer
from perfkit.codegen.names import Names
from perfkit.codegen.nodes import Extreme
from perfkit.ir.affine import Affine
from perfkit.ir.scop import Array

TAKE = "perfkit_take"

_TEXT = """\
#ifdef __linux__
#include <sys/syscall.h>
extern long syscall(long number, ...);
#endif
extern void *aligned_alloc(size_t alignment, size_t size);
static size_t *perfkit_spare;  /* the block of the last call; it starts with its size */

static inline size_t perfkit_lines(size_t size) { return (size + 63) / 64 * 64; }

static inline char *perfkit_take(size_t size)
{
  const size_t huge = (size_t)1 << 21, unit = size < 2 * huge ? 64 : huge;
  size_t *block = __atomic_exchange_n(&perfkit_spare, (size_t *)0, __ATOMIC_ACQ_REL);
  if (block && *block >= size)
    return (char *)block + 64;
  free(block);
  size = (size + 64 + unit - 1) / unit * unit;
  block = aligned_alloc(unit, size);
  if (!block)
    return 0;
#ifdef SYS_madvise
  if (unit == huge)
    syscall(SYS_madvise, block, size, 14 /* MADV_HUGEPAGE: fewer page faults */);
#endif
  *block = size - 64;
  return (char *)block + 64;
}

static inline void perfkit_give(char *memory)
{
  size_t *block = (size_t *)(void *)(memory - 64);
  if (*block <= (size_t)1 << 26)
    block = __atomic_exchange_n(&perfkit_spare, block, __ATOMIC_ACQ_REL);
  free(block);
}"""


def heap(
    arrays: Sequence[Array], writer: Writer, names: Names, on_failure: str
) -> tuple[list[str], list[str]]:
    """The lines that declare ``arrays`` and those that give their memory back.

    ``on_failure`` is the statement that runs when there is no memory.
    """
    if not arrays:
        return [], []
    need_memory(writer.helpers)
    memory = names.fresh("memory")
    lines: list[str] = []
    pointers: list[str] = []
    sizes: list[str] = []
    for array in arrays:
        c, name = C_TYPES[array.dtype], writer.name(array.name)
        size = names.fresh(f"{name}_size")
        lines.append(
            f"const size_t {size} = perfkit_lines(sizeof({c}) * {_count(array, writer)});"
        )
        inner = "".join(f"[{writer.affine(e)}]" for e in array.shape[1:])
        pointer = f"(*restrict {name}){inner}" if inner else f"*restrict {name}"
        pointers.append(f"{c} {pointer} = (void *)({' + '.join([memory, *sizes])});")
        sizes.append(size)
    lines.append(f"char *{memory} = {TAKE}({' + '.join(sizes)});")
    lines.append(f"if (!{memory}) {{ {on_failure} }}")
    return [*lines, *pointers], [f"perfkit_give({memory});"]


def need_memory(helpers: Helpers) -> None:
    """Define ``perfkit_lines``, ``perfkit_take`` and ``perfkit_give`` in the prelude."""
    helpers.need(TAKE, _TEXT)


def _count(array: Array, writer: Writer) -> str:
    """The number of elements, one at least: where nothing runs an extent may be negative."""
    return " * ".join(
        f"(size_t){writer.bound(Extreme('max', (e, Affine.constant(1))))}"
        if not e.is_constant else str(max(1, e.const))
        for e in array.shape
    )  # fmt: skip


__all__ = ["TAKE", "heap", "need_memory"]
