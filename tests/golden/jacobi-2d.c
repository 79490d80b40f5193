#include <math.h>
#include <stdint.h>

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
#endif
static inline int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
static inline int64_t max_int64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t min_int64(int64_t a, int64_t b) { return a < b ? a : b; }
typedef double f64x4 __attribute__((vector_size(32)));
typedef double f64x4_u __attribute__((vector_size(32), aligned(8)));

static int64_t jacobi_2d_kernel(int64_t tsteps, int64_t n, int64_t A_1, int64_t B_0, int64_t B_1, double (*restrict A)[A_1], double (*restrict B)[B_1])
{
  (void)tsteps;
  (void)n;
  (void)A_1;
  (void)B_0;
  (void)B_1;
  {
    const int perfkit_home = perfkit_here();
    #pragma omp parallel num_threads(2)
    {
      perfkit_bind(perfkit_home);
      for (int64_t t_t = 0; t_t <= floor_div(n + 4 * tsteps - 5, 32); ++t_t) {
        #pragma omp for schedule(dynamic)
        for (int64_t i_t = max_int64(t_t - floor_div(tsteps + 15, 16) + 1, floor_div(t_t + 1, 2)); i_t <= min_int64(t_t, min_int64(floor_div(n + 2 * tsteps - 3, 32), floor_div(n + 32 * t_t + 29, 64))); ++i_t) {
          for (int64_t j_t = max_int64(floor_div(t_t - i_t, 16), floor_div(48 * i_t - n - 16 * t_t - 13, 256)); j_t <= min_int64(floor_div(n + 2 * tsteps - 3, 512), min_int64(floor_div(n + 16 * t_t + 28, 512), floor_div(n + 32 * t_t - 32 * i_t + 29, 512))); ++j_t) {
            for (int64_t t = max_int64(16 * t_t - 16 * i_t, max_int64(256 * j_t + floor_div(n, 2) - n + 1, 16 * i_t + floor_div(n, 2) - n + 1)); t <= min_int64(tsteps - 1, 16 * t_t - 16 * i_t + 15); ++t) {
              for (int64_t i = max_int64(32 * i_t, max_int64(512 * j_t - n + 3, 2 * t + 1)); i <= min_int64(32 * i_t + 31, min_int64(n + 2 * t - 1, 256 * j_t + n + t + 253)); ++i) {
                if (n + 2 * t >= i + 2) {
                  int64_t j = max_int64(512 * j_t, 2 * t + 1);
                  for (; j <= min_int64(512 * j_t + 511, n + 2 * t - 2) && (uintptr_t)&B[i - 2 * t][j - 2 * t] % 32 != 0; ++j) {
                    /* S0: B[i, j] = 0.2 * (A[i, j] + A[i, j - 1] + A[i, j + 1] + A[i + 1, j] + A[i - 1, j]) */
                    B[i - 2 * t][j - 2 * t] = 0.2 * (A[i - 2 * t][j - 2 * t] + A[i - 2 * t][j - 2 * t - 1] + A[i - 2 * t][j - 2 * t + 1] + A[i - 2 * t + 1][j - 2 * t] + A[i - 2 * t - 1][j - 2 * t]);
                  }
                  for (; j + 3 <= min_int64(512 * j_t + 511, n + 2 * t - 2); j += 4) {
                    /* S0: B[i, j] = 0.2 * (A[i, j] + A[i, j - 1] + A[i, j + 1] + A[i + 1, j] + A[i - 1, j]) */
                    *(f64x4_u *)&B[i - 2 * t][j - 2 * t] = 0.2 * (*(const f64x4_u *)&A[i - 2 * t][j - 2 * t] + *(const f64x4_u *)&A[i - 2 * t][j - 2 * t - 1] + *(const f64x4_u *)&A[i - 2 * t][j - 2 * t + 1] + *(const f64x4_u *)&A[i - 2 * t + 1][j - 2 * t] + *(const f64x4_u *)&A[i - 2 * t - 1][j - 2 * t]);
                  }
                  for (; j <= min_int64(512 * j_t + 511, n + 2 * t - 2); ++j) {
                    /* S0: B[i, j] = 0.2 * (A[i, j] + A[i, j - 1] + A[i, j + 1] + A[i + 1, j] + A[i - 1, j]) */
                    B[i - 2 * t][j - 2 * t] = 0.2 * (A[i - 2 * t][j - 2 * t] + A[i - 2 * t][j - 2 * t - 1] + A[i - 2 * t][j - 2 * t + 1] + A[i - 2 * t + 1][j - 2 * t] + A[i - 2 * t - 1][j - 2 * t]);
                  }
                }
                if (i >= 2 * t + 2) {
                  int64_t j_2 = max_int64(512 * j_t, 2 * t + 2);
                  for (; j_2 <= min_int64(512 * j_t + 511, n + 2 * t - 1) && (uintptr_t)&A[i - 2 * t - 1][j_2 - 2 * t - 1] % 32 != 0; ++j_2) {
                    /* S1: A[i, j] = 0.2 * (B[i, j] + B[i, j - 1] + B[i, j + 1] + B[i + 1, j] + B[i - 1, j]) */
                    A[i - 2 * t - 1][j_2 - 2 * t - 1] = 0.2 * (B[i - 2 * t - 1][j_2 - 2 * t - 1] + B[i - 2 * t - 1][j_2 - 2 * t - 2] + B[i - 2 * t - 1][j_2 - 2 * t] + B[i - 2 * t][j_2 - 2 * t - 1] + B[i - 2 * t - 2][j_2 - 2 * t - 1]);
                  }
                  for (; j_2 + 3 <= min_int64(512 * j_t + 511, n + 2 * t - 1); j_2 += 4) {
                    /* S1: A[i, j] = 0.2 * (B[i, j] + B[i, j - 1] + B[i, j + 1] + B[i + 1, j] + B[i - 1, j]) */
                    *(f64x4_u *)&A[i - 2 * t - 1][j_2 - 2 * t - 1] = 0.2 * (*(const f64x4_u *)&B[i - 2 * t - 1][j_2 - 2 * t - 1] + *(const f64x4_u *)&B[i - 2 * t - 1][j_2 - 2 * t - 2] + *(const f64x4_u *)&B[i - 2 * t - 1][j_2 - 2 * t] + *(const f64x4_u *)&B[i - 2 * t][j_2 - 2 * t - 1] + *(const f64x4_u *)&B[i - 2 * t - 2][j_2 - 2 * t - 1]);
                  }
                  for (; j_2 <= min_int64(512 * j_t + 511, n + 2 * t - 1); ++j_2) {
                    /* S1: A[i, j] = 0.2 * (B[i, j] + B[i, j - 1] + B[i, j + 1] + B[i + 1, j] + B[i - 1, j]) */
                    A[i - 2 * t - 1][j_2 - 2 * t - 1] = 0.2 * (B[i - 2 * t - 1][j_2 - 2 * t - 1] + B[i - 2 * t - 1][j_2 - 2 * t - 2] + B[i - 2 * t - 1][j_2 - 2 * t] + B[i - 2 * t][j_2 - 2 * t - 1] + B[i - 2 * t - 2][j_2 - 2 * t - 1]);
                  }
                }
              }
            }
          }
        }
      }
    }
  }
  return 0;
}

int64_t jacobi_2d_call(void **args)
{
  return jacobi_2d_kernel(*(int64_t *)args[0], *(int64_t *)args[1], *(int64_t *)args[2], *(int64_t *)args[3], *(int64_t *)args[4], args[5], args[6]);
}
