"""C of exp, log, log1p and tanh in float32, for loops that compilers turn into SIMD code.

No branch depends on a value, so infinities, overflow and subnormals cost nothing, where the
vector functions of the C library leave the lanes for those. Tests bound the errors. The polynomials
are minimax fits (Lawson's algorithm) on the ranges that the reductions leave; ln 2 comes in two
parts (Cody and Waite, Software Manual for the Elementary Functions, 1980).
"""

from __future__ import annotations

_BASIC = r"""
static inline float perfkit_float(int32_t bits)
{
  float f;
  __builtin_memcpy(&f, &bits, sizeof f);
  return f;
}

static inline int32_t perfkit_bits(float f)
{
  int32_t bits;
  __builtin_memcpy(&bits, &f, sizeof f);
  return bits;
}

static inline float perfkit_pick(int32_t test, float yes, float no)
{
  return perfkit_float((perfkit_bits(yes) & -test) | (perfkit_bits(no) & (test - 1)));
}
"""

_EXP = r"""
static inline float perfkit_expf(float x)
{
  /* exp(n ln 2 + r), |r| <= ln 2 / 2; 2^n in two factors, for subnormal results. */
  x = perfkit_pick(x > 89.0f, 89.0f, x);
  x = perfkit_pick(x < -105.0f, -105.0f, x);
  const float shifted = x * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const int32_t power = (int32_t)((uint32_t)perfkit_bits(shifted) - 0x4b400000u);
  const float r = (x - n * 0.693145752f) - n * 1.42860677e-06f;
  float p = 0.00138130691f;
  p = p * r + 0.0083694158f;
  p = p * r + 0.0416684634f;
  p = p * r + 0.166665149f;
  p = p * r + 0.499999927f;
  p = p * (r * r) + r;
  p = p + 1.0f;
  const uint32_t half = (uint32_t)(power >> 1), rest = (uint32_t)power - half;
  const float low = perfkit_float((int32_t)((half + 127) << 23));
  const float high = perfkit_float((int32_t)((rest + 127) << 23));
  return p * low * high;
}
"""

_LOG = r"""
static inline float perfkit_logf(float x)
{
  /* x = 2^n (1 + f), sqrt(1/2) <= 1 + f < sqrt(2) */
  const int32_t small = x < 1.17549435e-38f;
  const int32_t bits = perfkit_bits(perfkit_pick(small, x * 8388608.0f, x));
  const int32_t power = (int32_t)((uint32_t)bits - 0x3f3504f3u) >> 23;
  const uint32_t rest = (uint32_t)bits - ((uint32_t)power << 23);
  const float n = (float)(power - 23 * small), f = perfkit_float((int32_t)rest) - 1.0f;
  float p = 0.0674664650f;
  p = p * f - 0.116756563f;
  p = p * f + 0.118881634f;
  p = p * f - 0.124055883f;
  p = p * f + 0.142195521f;
  p = p * f - 0.166679959f;
  p = p * f + 0.200021187f;
  p = p * f - 0.250000096f;
  p = p * f + 0.333333126f;
  const float square = f * f;
  float y = p * f * square + n * 1.42860677e-06f;
  y = y - 0.5f * square;
  y = (f + y) + n * 0.693145752f;
  y = perfkit_pick(x == 0.0f, -INFINITY, y);
  y = perfkit_pick(x < 0.0f, NAN, y);
  return perfkit_pick(x < INFINITY, y, x);
}
"""

_LOG1P = r"""
static inline float perfkit_log1pf(float x)
{
  /* The rounding error of 1 + x, put back to first order. */
  const float sum = 1.0f + x, lost = x - (sum - 1.0f);
  const float y = perfkit_logf(sum) + lost / sum;
  return perfkit_pick((sum < INFINITY) & (sum > 0.0f), y, perfkit_logf(sum));
}
"""

_TANH = r"""
static inline float perfkit_tanhf(float x)
{
  const float size = fabsf(x), square = x * x;
  float p = -0.00566697502f;
  p = p * square + 0.0206061748f;
  p = p * square - 0.0537300066f;
  p = p * square + 0.13331331f;
  p = p * square - 0.333332781f;
  p = p * square * size + size;
  const float far = 1.0f - 2.0f / (perfkit_expf(2.0f * size) + 1.0f);
  return copysignf(perfkit_pick(size < 0.62f, p, far), x);
}
"""

_TEXTS = {"exp": (_EXP,), "log": (_LOG,), "log1p": (_LOG, _LOG1P), "tanh": (_EXP, _TANH)}


def definitions(function: str, dtype: str) -> tuple[str, ...] | None:
    """The C text that defines ``perfkit_<function>f``, in parts; None where there is none."""
    if dtype != "float32" or function not in _TEXTS:
        return None
    return tuple(text.strip() for text in (_BASIC, *_TEXTS[function]))


__all__ = ["definitions"]
