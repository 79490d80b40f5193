// The 16-bit element types, and pairs of them in one register (the lower half comes first).
#pragma once

#include <cstdint>
#include <cstring>

#include "cuda/platform.h"

namespace perfkit::cuda {

PERFKIT_BODY std::uint32_t float_bits(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
PERFKIT_BODY float bits_float(std::uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

struct Bf16 {
  static PERFKIT_BODY float widen(std::uint16_t bits) {
    return bits_float(std::uint32_t{bits} << 16);
  }
#if !defined(__CUDA_ARCH__)
  static std::uint16_t narrow(float value) {
    const std::uint32_t bits = float_bits(value);
    if (value != value) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
    return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
#endif
  static PERFKIT_BODY std::uint32_t pack(float low, float high) {
#if defined(__CUDA_ARCH__)
    std::uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
#else
    return narrow(low) | std::uint32_t{narrow(high)} << 16;
#endif
  }
};

struct Fp16 {
  static PERFKIT_BODY float widen(std::uint16_t bits) {
#if defined(__CUDA_ARCH__)
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#else
    const std::uint32_t sign = (bits & 0x8000u) << 16;
    const std::uint32_t exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    if (exponent == 31) return bits_float(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0)
      return bits_float(sign | float_bits(static_cast<float>(fraction) * 0x1p-24f));
    return bits_float(sign | (exponent + 112) << 23 | fraction << 13);
#endif
  }
#if !defined(__CUDA_ARCH__)
  static std::uint16_t narrow(float value) {
    const std::uint32_t bits = float_bits(value);
    const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
    std::uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return sign | 0x7e00;
    if (magnitude >= 0x47800000) return sign | 0x7c00;  // 2^16 and above
    if (magnitude < 0x38800000) {  // subnormal: rounded where 2^-24 is the unit
      const float units = bits_float(magnitude) * 0x1p24f + 0x1p23f;
      return static_cast<std::uint16_t>(sign | (float_bits(units) & 0x7ff));
    }
    magnitude += 0xfff + (magnitude >> 13 & 1);
    return static_cast<std::uint16_t>(sign | (magnitude - 0x38000000) >> 13);
  }
#endif
  static PERFKIT_BODY std::uint32_t pack(float low, float high) {
#if defined(__CUDA_ARCH__)
    std::uint32_t both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
#else
    return narrow(low) | std::uint32_t{narrow(high)} << 16;
#endif
  }
};

}  // namespace perfkit::cuda
