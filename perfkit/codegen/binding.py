"""C helpers that keep the threads of a kernel on cores of their own.

libgomp leaves its threads where the scheduler puts them unless ``OMP_PROC_BIND`` was set before the
process started, and two threads on one core turn every barrier into a time slice. So each worker
pins itself to a core: the caller's thread stays free, and the workers take the allowed cores that
follow the one it runs on. It costs one comparison per region unless the caller has moved. With
more threads than allowed cores, or with ``OMP_PROC_BIND`` set, nothing is pinned.
"""

from __future__ import annotations

from perfkit.codegen.ctext import Helpers

_TEXT = """\
#if defined(_OPENMP) && defined(__linux__)
#include <omp.h>
#include <sys/syscall.h>
extern long syscall(long number, ...);
static unsigned long perfkit_allowed[16];  /* cores that this process may use */

static inline int perfkit_here(void)
{
  unsigned core = 0;
  if (!perfkit_allowed[0] && !perfkit_allowed[1])
    syscall(SYS_sched_getaffinity, 0, sizeof perfkit_allowed, perfkit_allowed);
  syscall(SYS_getcpu, &core, (void *)0, (void *)0);
  return (int)core;
}

static inline void perfkit_bind(int home)
{
  static _Thread_local int bound = -1;
  const int bits = 8 * (int)sizeof(unsigned long), total = 16 * bits;
  int left = omp_get_thread_num(), cores = 0, core = home;
  if (left == 0 || omp_get_proc_bind() != omp_proc_bind_false)
    return;
  for (int k = 0; k < 16; ++k)
    cores += __builtin_popcountl(perfkit_allowed[k]);
  if (omp_get_num_threads() > cores)
    return;
  while (left > 0) {
    core = (core + 1) % total;
    left -= (int)(perfkit_allowed[core / bits] >> (core % bits) & 1);
  }
  if (core != bound) {
    unsigned long one[16] = {0};
    one[core / bits] = 1ul << (core % bits);
    if (syscall(SYS_sched_setaffinity, 0, sizeof one, one) == 0)
      bound = core;
  }
}
#else
static inline int perfkit_here(void) { return 0; }
static inline void perfkit_bind(int home) { (void)home; }
#endif"""


def need_binding(helpers: Helpers) -> None:
    """Define ``perfkit_here`` and ``perfkit_bind`` in the prelude."""
    helpers.need("perfkit_bind", _TEXT)


__all__ = ["need_binding"]
