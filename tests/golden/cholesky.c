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
static inline int64_t min_int64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max_int64(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t cholesky_kernel(int64_t n, int64_t A_1, double (*restrict A)[A_1])
{
  (void)n;
  (void)A_1;
  {
    const int perfkit_home = perfkit_here();
    #pragma omp parallel num_threads(2)
    {
      perfkit_bind(perfkit_home);
      for (int64_t k_t = -1; k_t <= floor_div(n - 1, 16); ++k_t) {
        #pragma omp for schedule(dynamic)
        for (int64_t i_t = min_int64(k_t, floor_div(n - 1, 32)); i_t >= floor_div(k_t + 1, 2); --i_t) {
          if (2 * i_t >= k_t + 1) {
            for (int64_t j_t = floor_div(i_t + k_t, 2) - i_t; j_t <= floor_div(i_t, 2); ++j_t) {
              for (int64_t k = 32 * k_t - 32 * i_t; k <= 32 * k_t - 32 * i_t + 31; ++k) {
                for (int64_t i = 32 * i_t; i <= min_int64(n - 1, 32 * i_t + 31); ++i) {
                  if (k >= 64 * j_t) {
                    /* S1: A[i, j] /= A[j, j] */
                    A[i][k] = A[i][k] / A[k][k];
                  }
                  for (int64_t j = max_int64(64 * j_t, k + 1); j <= min_int64(64 * j_t + 63, i - 1); ++j) {
                    /* S0: A[i, j] -= A[i, k] * A[j, k] */
                    A[i][j] = A[i][j] - A[i][k] * A[j][k];
                  }
                  if (64 * j_t + 63 >= i) {
                    /* S2: A[i, i] -= A[i, k] * A[i, k] */
                    A[i][i] = A[i][i] - A[i][k] * A[i][k];
                  }
                }
              }
            }
          }
          if (k_t >= 2 * i_t) {
            for (int64_t k = 16 * k_t; k <= min_int64(n - 1, 16 * k_t + 31); ++k) {
              /* S3: A[i, i] = math.sqrt(A[i, i]) */
              A[k][k] = sqrt(A[k][k]);
              for (int64_t i = k + 1; i <= min_int64(n - 1, 16 * k_t + 31); ++i) {
                /* S1: A[i, j] /= A[j, j] */
                A[i][k] = A[i][k] / A[k][k];
                for (int64_t j = k + 1; j <= i - 1; ++j) {
                  /* S0: A[i, j] -= A[i, k] * A[j, k] */
                  A[i][j] = A[i][j] - A[i][k] * A[j][k];
                }
                /* S2: A[i, i] -= A[i, k] * A[i, k] */
                A[i][i] = A[i][i] - A[i][k] * A[i][k];
              }
            }
          }
        }
      }
    }
  }
  return 0;
}

int64_t cholesky_call(void **args)
{
  return cholesky_kernel(*(int64_t *)args[0], *(int64_t *)args[1], args[2]);
}
