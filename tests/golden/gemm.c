#include <math.h>
#include <stdint.h>
#include <stdlib.h>

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
}
static inline int64_t max_int64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
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
typedef double f64x4 __attribute__((vector_size(32)));
typedef double f64x4_u __attribute__((vector_size(32), aligned(8)));
static inline int64_t min_int64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline void perfkit_ahead(const void *first, const void *second, int n, int stop)
{
  const uintptr_t apart = (uintptr_t)second - (uintptr_t)first;
  for (; n < stop; ++n)
    __builtin_prefetch((const void *)((uintptr_t)first + (uintptr_t)n * apart), 1);
}

static int64_t gemm_kernel(int64_t ni, int64_t nj, int64_t A_0, int64_t nk, int64_t B_0, int64_t B_1, double alpha, double beta, double (*restrict C)[nj], const double (*restrict A)[nk], const double (*restrict B)[B_1])
{
  (void)ni;
  (void)nj;
  (void)A_0;
  (void)nk;
  (void)B_0;
  (void)B_1;
  (void)alpha;
  (void)beta;
  const size_t B_pack_size1 = perfkit_lines(sizeof(double) * (size_t)max_int64(floor_div(nk + 255, 256), 1) * (size_t)max_int64(floor_div(nj + 7, 8), 1) * 256 * 8);
  char *memory1 = perfkit_take(B_pack_size1);
  if (!memory1) { return 1; }
  double (*restrict B_pack)[floor_div(nj + 7, 8)][256][8] = (void *)(memory1);
  {
    const int perfkit_home = perfkit_here();
    #pragma omp parallel num_threads(2)
    {
      perfkit_bind(perfkit_home);
      #pragma omp for schedule(static)
      for (int64_t i = 0; i <= ni - 1; ++i) {
        int64_t j = 0;
        for (; j <= nj - 1 && (uintptr_t)&C[i][j] % 32 != 0; ++j) {
          /* S0: C[i, j] *= beta */
          C[i][j] = C[i][j] * beta;
        }
        for (; j <= nj - 4; j += 4) {
          /* S0: C[i, j] *= beta */
          *(f64x4_u *)&C[i][j] = *(const f64x4_u *)&C[i][j] * beta;
        }
        for (; j <= nj - 1; ++j) {
          /* S0: C[i, j] *= beta */
          C[i][j] = C[i][j] * beta;
        }
      }
      if (ni >= 1) {
        #pragma omp for schedule(static)
        for (int64_t B_pack_copy_k_t_x = 0; B_pack_copy_k_t_x <= floor_div(nk - 1, 256); ++B_pack_copy_k_t_x) {
          for (int64_t B_pack_copy_j_2_t_x = 0; B_pack_copy_j_2_t_x <= floor_div(nj - 1, 8); ++B_pack_copy_j_2_t_x) {
            for (int64_t B_pack_copy_x0 = 256 * B_pack_copy_k_t_x; B_pack_copy_x0 <= min_int64(nk - 1, 256 * B_pack_copy_k_t_x + 255); ++B_pack_copy_x0) {
              int64_t B_pack_copy_x1 = 8 * B_pack_copy_j_2_t_x;
              for (; B_pack_copy_x1 + 3 <= min_int64(nj - 1, 8 * B_pack_copy_j_2_t_x + 7); B_pack_copy_x1 += 4) {
                /* B_pack_copy: B_pack = B */
                *(f64x4_u *)&B_pack[B_pack_copy_k_t_x][B_pack_copy_j_2_t_x][B_pack_copy_x0 - 256 * B_pack_copy_k_t_x][B_pack_copy_x1 - 8 * B_pack_copy_j_2_t_x] = *(const f64x4_u *)&B[B_pack_copy_x0][B_pack_copy_x1];
              }
              for (; B_pack_copy_x1 <= min_int64(nj - 1, 8 * B_pack_copy_j_2_t_x + 7); ++B_pack_copy_x1) {
                /* B_pack_copy: B_pack = B */
                B_pack[B_pack_copy_k_t_x][B_pack_copy_j_2_t_x][B_pack_copy_x0 - 256 * B_pack_copy_k_t_x][B_pack_copy_x1 - 8 * B_pack_copy_j_2_t_x] = B[B_pack_copy_x0][B_pack_copy_x1];
              }
            }
          }
        }
      }
      if (nj >= 1) {
        #pragma omp for schedule(dynamic)
        for (int64_t i_2_t = 0; i_2_t <= floor_div(ni - 1, 48); ++i_2_t) {
          for (int64_t k_t = 0; k_t <= floor_div(nk - 1, 256); ++k_t) {
            double A_pack[48][256] __attribute__((aligned(64)));
            for (int64_t A_pack_copy_x0 = 48 * i_2_t; A_pack_copy_x0 <= min_int64(ni - 1, 48 * i_2_t + 47); ++A_pack_copy_x0) {
              int64_t A_pack_copy_x1 = 256 * k_t;
              for (; A_pack_copy_x1 + 3 <= min_int64(nk - 1, 256 * k_t + 255); A_pack_copy_x1 += 4) {
                /* A_pack_copy: A_pack = A */
                *(f64x4_u *)&A_pack[A_pack_copy_x0 - 48 * i_2_t][A_pack_copy_x1 - 256 * k_t] = alpha * *(const f64x4_u *)&A[A_pack_copy_x0][A_pack_copy_x1];
              }
              for (; A_pack_copy_x1 <= min_int64(nk - 1, 256 * k_t + 255); ++A_pack_copy_x1) {
                /* A_pack_copy: A_pack = A */
                A_pack[A_pack_copy_x0 - 48 * i_2_t][A_pack_copy_x1 - 256 * k_t] = alpha * A[A_pack_copy_x0][A_pack_copy_x1];
              }
            }
            for (int64_t j_2_t = 0; j_2_t <= floor_div(nj - 1, 8); ++j_2_t) {
              int64_t i_2 = 48 * i_2_t;
              for (; i_2 + 5 <= min_int64(ni - 1, 48 * i_2_t + 47); i_2 += 6) {
                int64_t j_2 = 8 * j_2_t;
                for (; j_2 + 7 <= min_int64(nj - 1, 8 * j_2_t + 7); j_2 += 8) {
                  if (nk >= 256 * k_t + 1) {
                    f64x4 C_1 = *(const f64x4_u *)&C[i_2][j_2];
                    f64x4 C_2 = *(const f64x4_u *)&C[i_2][j_2 + 4];
                    f64x4 C_3 = *(const f64x4_u *)&C[i_2 + 1][j_2];
                    f64x4 C_4 = *(const f64x4_u *)&C[i_2 + 1][j_2 + 4];
                    f64x4 C_5 = *(const f64x4_u *)&C[i_2 + 2][j_2];
                    f64x4 C_6 = *(const f64x4_u *)&C[i_2 + 2][j_2 + 4];
                    f64x4 C_7 = *(const f64x4_u *)&C[i_2 + 3][j_2];
                    f64x4 C_8 = *(const f64x4_u *)&C[i_2 + 3][j_2 + 4];
                    f64x4 C_9 = *(const f64x4_u *)&C[i_2 + 4][j_2];
                    f64x4 C_10 = *(const f64x4_u *)&C[i_2 + 4][j_2 + 4];
                    f64x4 C_11 = *(const f64x4_u *)&C[i_2 + 5][j_2];
                    f64x4 C_12 = *(const f64x4_u *)&C[i_2 + 5][j_2 + 4];
                    perfkit_ahead(&C[i_2][j_2], &C[i_2 + 1][j_2], 6, 12);
                    perfkit_ahead(&C[i_2][j_2 + 4], &C[i_2 + 1][j_2 + 4], 6, 12);
                    for (int64_t k = 256 * k_t; k <= min_int64(nk - 1, 256 * k_t + 255); ++k) {
                      /* S1: C[i, j] += alpha * A[i, k] * B[k, j] */
                      const double A_pack_t1 = A_pack[i_2 - 48 * i_2_t][k - 256 * k_t];
                      const f64x4 B_pack_t1 = *(const f64x4_u *)&B_pack[k_t][j_2_t][k - 256 * k_t][j_2 - 8 * j_2_t];
                      C_1 = C_1 + A_pack_t1 * B_pack_t1;
                      const f64x4 B_pack_t2 = *(const f64x4_u *)&B_pack[k_t][j_2_t][k - 256 * k_t][j_2 - 8 * j_2_t + 4];
                      C_2 = C_2 + A_pack_t1 * B_pack_t2;
                      const double A_pack_t2 = A_pack[i_2 - 48 * i_2_t + 1][k - 256 * k_t];
                      C_3 = C_3 + A_pack_t2 * B_pack_t1;
                      C_4 = C_4 + A_pack_t2 * B_pack_t2;
                      const double A_pack_t3 = A_pack[i_2 - 48 * i_2_t + 2][k - 256 * k_t];
                      C_5 = C_5 + A_pack_t3 * B_pack_t1;
                      C_6 = C_6 + A_pack_t3 * B_pack_t2;
                      const double A_pack_t4 = A_pack[i_2 - 48 * i_2_t + 3][k - 256 * k_t];
                      C_7 = C_7 + A_pack_t4 * B_pack_t1;
                      C_8 = C_8 + A_pack_t4 * B_pack_t2;
                      const double A_pack_t5 = A_pack[i_2 - 48 * i_2_t + 4][k - 256 * k_t];
                      C_9 = C_9 + A_pack_t5 * B_pack_t1;
                      C_10 = C_10 + A_pack_t5 * B_pack_t2;
                      const double A_pack_t6 = A_pack[i_2 - 48 * i_2_t + 5][k - 256 * k_t];
                      C_11 = C_11 + A_pack_t6 * B_pack_t1;
                      C_12 = C_12 + A_pack_t6 * B_pack_t2;
                    }
                    *(f64x4_u *)&C[i_2][j_2] = C_1;
                    *(f64x4_u *)&C[i_2][j_2 + 4] = C_2;
                    *(f64x4_u *)&C[i_2 + 1][j_2] = C_3;
                    *(f64x4_u *)&C[i_2 + 1][j_2 + 4] = C_4;
                    *(f64x4_u *)&C[i_2 + 2][j_2] = C_5;
                    *(f64x4_u *)&C[i_2 + 2][j_2 + 4] = C_6;
                    *(f64x4_u *)&C[i_2 + 3][j_2] = C_7;
                    *(f64x4_u *)&C[i_2 + 3][j_2 + 4] = C_8;
                    *(f64x4_u *)&C[i_2 + 4][j_2] = C_9;
                    *(f64x4_u *)&C[i_2 + 4][j_2 + 4] = C_10;
                    *(f64x4_u *)&C[i_2 + 5][j_2] = C_11;
                    *(f64x4_u *)&C[i_2 + 5][j_2 + 4] = C_12;
                  }
                }
                for (; j_2 <= min_int64(nj - 1, 8 * j_2_t + 7); ++j_2) {
                  if (nk >= 256 * k_t + 1) {
                    double C_13 = C[i_2][j_2];
                    double C_14 = C[i_2 + 1][j_2];
                    double C_15 = C[i_2 + 2][j_2];
                    double C_16 = C[i_2 + 3][j_2];
                    double C_17 = C[i_2 + 4][j_2];
                    double C_18 = C[i_2 + 5][j_2];
                    for (int64_t k = 256 * k_t; k <= min_int64(nk - 1, 256 * k_t + 255); ++k) {
                      /* S1: C[i, j] += alpha * A[i, k] * B[k, j] */
                      const double B_pack_t3 = B_pack[k_t][j_2_t][k - 256 * k_t][j_2 - 8 * j_2_t];
                      C_13 = C_13 + A_pack[i_2 - 48 * i_2_t][k - 256 * k_t] * B_pack_t3;
                      C_14 = C_14 + A_pack[i_2 - 48 * i_2_t + 1][k - 256 * k_t] * B_pack_t3;
                      C_15 = C_15 + A_pack[i_2 - 48 * i_2_t + 2][k - 256 * k_t] * B_pack_t3;
                      C_16 = C_16 + A_pack[i_2 - 48 * i_2_t + 3][k - 256 * k_t] * B_pack_t3;
                      C_17 = C_17 + A_pack[i_2 - 48 * i_2_t + 4][k - 256 * k_t] * B_pack_t3;
                      C_18 = C_18 + A_pack[i_2 - 48 * i_2_t + 5][k - 256 * k_t] * B_pack_t3;
                    }
                    C[i_2][j_2] = C_13;
                    C[i_2 + 1][j_2] = C_14;
                    C[i_2 + 2][j_2] = C_15;
                    C[i_2 + 3][j_2] = C_16;
                    C[i_2 + 4][j_2] = C_17;
                    C[i_2 + 5][j_2] = C_18;
                  }
                }
              }
              for (; i_2 <= min_int64(ni - 1, 48 * i_2_t + 47); ++i_2) {
                int64_t j_2 = 8 * j_2_t;
                for (; j_2 + 7 <= min_int64(nj - 1, 8 * j_2_t + 7); j_2 += 8) {
                  if (nk >= 256 * k_t + 1) {
                    f64x4 C_19 = *(const f64x4_u *)&C[i_2][j_2];
                    f64x4 C_20 = *(const f64x4_u *)&C[i_2][j_2 + 4];
                    for (int64_t k = 256 * k_t; k <= min_int64(nk - 1, 256 * k_t + 255); ++k) {
                      /* S1: C[i, j] += alpha * A[i, k] * B[k, j] */
                      const double A_pack_t7 = A_pack[i_2 - 48 * i_2_t][k - 256 * k_t];
                      C_19 = C_19 + A_pack_t7 * *(const f64x4_u *)&B_pack[k_t][j_2_t][k - 256 * k_t][j_2 - 8 * j_2_t];
                      C_20 = C_20 + A_pack_t7 * *(const f64x4_u *)&B_pack[k_t][j_2_t][k - 256 * k_t][j_2 - 8 * j_2_t + 4];
                    }
                    *(f64x4_u *)&C[i_2][j_2] = C_19;
                    *(f64x4_u *)&C[i_2][j_2 + 4] = C_20;
                  }
                }
                for (; j_2 <= min_int64(nj - 1, 8 * j_2_t + 7); ++j_2) {
                  if (nk >= 256 * k_t + 1) {
                    double C_21 = C[i_2][j_2];
                    for (int64_t k = 256 * k_t; k <= min_int64(nk - 1, 256 * k_t + 255); ++k) {
                      /* S1: C[i, j] += alpha * A[i, k] * B[k, j] */
                      C_21 = C_21 + A_pack[i_2 - 48 * i_2_t][k - 256 * k_t] * B_pack[k_t][j_2_t][k - 256 * k_t][j_2 - 8 * j_2_t];
                    }
                    C[i_2][j_2] = C_21;
                  }
                }
              }
            }
          }
        }
      }
    }
  }
  perfkit_give(memory1);
  return 0;
}

int64_t gemm_call(void **args)
{
  return gemm_kernel(*(int64_t *)args[0], *(int64_t *)args[1], *(int64_t *)args[2], *(int64_t *)args[3], *(int64_t *)args[4], *(int64_t *)args[5], *(double *)args[6], *(double *)args[7], args[8], args[9], args[10]);
}
