#include "cpu/probe.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>
#include <utility>

#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__linux__) && defined(__aarch64__)
#include <sys/auxv.h>
#endif
#if defined(__x86_64__) || defined(__i386__)
#define PERFKIT_X86 1
#include <cpuid.h>
#endif

namespace perfkit {
namespace {

std::string read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::int64_t read_number(const std::string& path, std::int64_t fallback) {
  const std::string text = read_line(path);
  if (text.empty()) return fallback;
  char* end = nullptr;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (end == text.c_str()) return fallback;
  switch (*end) {  // sysfs writes "32K"
    case 'K': return value << 10;
    case 'M': return value << 20;
    case 'G': return value << 30;
    default: return value;
  }
}

// "0-3,8" -> {0,1,2,3,8}
std::vector<int> read_cpu_list(const std::string& path) {
  std::vector<int> cpus;
  std::stringstream text(read_line(path));
  std::string part;
  while (std::getline(text, part, ',')) {
    int first = 0, last = 0;
    const int found = std::sscanf(part.c_str(), "%d-%d", &first, &last);
    if (found < 1) continue;
    if (found == 1) last = first;
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

std::vector<int> affinity() {
  std::vector<int> cpus;
#if defined(__linux__)
  // The kernel refuses a mask smaller than its own, so grow until it fits.
  for (int bits = 1024; bits <= (1 << 20); bits *= 4) {
    cpu_set_t* set = CPU_ALLOC(bits);
    const std::size_t size = CPU_ALLOC_SIZE(bits);
    CPU_ZERO_S(size, set);
    const bool fits = sched_getaffinity(0, size, set) == 0;
    if (fits)
      for (int cpu = 0; cpu < bits; ++cpu)
        if (CPU_ISSET_S(cpu, size, set)) cpus.push_back(cpu);
    CPU_FREE(set);
    if (fits) break;
  }
#endif
  if (cpus.empty()) {
    const int count = std::max(1u, std::thread::hardware_concurrency());
    for (int cpu = 0; cpu < count; ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

std::string cpu_folder(int cpu) { return "/sys/devices/system/cpu/cpu" + std::to_string(cpu); }

int physical_cores(const std::vector<int>& cpus) {
  std::set<std::pair<std::int64_t, std::int64_t>> cores;
  for (int cpu : cpus) {
    const std::string topology = cpu_folder(cpu) + "/topology/";
    const std::int64_t core = read_number(topology + "core_id", -1);
    if (core < 0) return static_cast<int>(cpus.size());
    cores.emplace(read_number(topology + "physical_package_id", 0), core);
  }
  return static_cast<int>(cores.size());
}

std::vector<Cache> sysfs_caches(const std::vector<int>& cpus) {
  std::vector<Cache> caches;
  for (int index = 0;; ++index) {
    const std::string folder =
        cpu_folder(cpus.front()) + "/cache/index" + std::to_string(index) + "/";
    Cache cache;
    cache.level = static_cast<int>(read_number(folder + "level", 0));
    if (cache.level == 0) break;
    const std::string type = read_line(folder + "type");
    if (type == "Instruction") continue;
    cache.type = type == "Unified" ? "unified" : "data";
    cache.bytes = read_number(folder + "size", 0);
    cache.line = static_cast<int>(read_number(folder + "coherency_line_size", 64));
    int shared = 0;
    for (int cpu : read_cpu_list(folder + "shared_cpu_list"))
      shared += std::count(cpus.begin(), cpus.end(), cpu) > 0;
    cache.shared_by = std::max(1, shared);
    if (cache.bytes > 0) caches.push_back(cache);
  }
  return caches;
}

#if PERFKIT_X86
struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned sub = 0) {
  Registers r;
  if (!__get_cpuid_count(leaf, sub, &r.eax, &r.ebx, &r.ecx, &r.edx)) return Registers{};
  return r;
}

// Which register states the operating system saves; without it the flags promise too much.
std::uint64_t xcr0() {
  if (!((cpuid(1).ecx >> 27) & 1u)) return 0;
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

void x86_isa(Probe& out) {
  const std::uint64_t saved = xcr0();
  const bool ymm = (saved & 0x6) == 0x6;
  const bool zmm = ymm && (saved & 0xe0) == 0xe0;
  const bool tiles = (saved & 0x60000) == 0x60000;
  const Registers one = cpuid(1), seven = cpuid(7), seven1 = cpuid(7, 1);
  const auto add = [&](const char* name, unsigned word, int bit, bool usable) {
    if (usable && ((word >> bit) & 1u)) out.isa.emplace_back(name);
  };
  add("sse2", one.edx, 26, true);
  add("sse4.2", one.ecx, 20, true);
  add("avx", one.ecx, 28, ymm);
  add("f16c", one.ecx, 29, ymm);
  add("fma", one.ecx, 12, ymm);
  add("avx2", seven.ebx, 5, ymm);
  add("avx512f", seven.ebx, 16, zmm);
  add("avx512dq", seven.ebx, 17, zmm);
  add("avx512bw", seven.ebx, 30, zmm);
  add("avx512vl", seven.ebx, 31, zmm);
  add("avx512vnni", seven.ecx, 11, zmm);
  add("avx512_bf16", seven1.eax, 5, zmm);
  add("avx512_fp16", seven.edx, 23, zmm);
  // A process must still ask the kernel for the tile state (arch_prctl) before its first use.
  add("amx_tile", seven.edx, 24, tiles);
  add("amx_bf16", seven.edx, 22, tiles);
  add("amx_int8", seven.edx, 25, tiles);
  const auto has = [&](const char* name) {
    return std::find(out.isa.begin(), out.isa.end(), name) != out.isa.end();
  };
  out.simd_bytes = has("avx512f") ? 64 : has("avx") ? 32 : 16;
}

std::string x86_cpu() {
  char brand[49] = {};
  if (cpuid(0x80000000u).eax >= 0x80000004u)
    for (unsigned leaf = 0; leaf < 3; ++leaf) {
      const Registers r = cpuid(0x80000002u + leaf);
      std::memcpy(brand + 16 * leaf, &r, 16);
    }
  const unsigned signature = cpuid(1).eax;
  const unsigned base = (signature >> 8) & 0xf;
  const unsigned family = base == 0xf ? base + ((signature >> 20) & 0xff) : base;
  const unsigned model =
      ((signature >> 4) & 0xf) | (base == 0xf || base == 6 ? ((signature >> 12) & 0xf0) : 0);
  std::string name(brand);
  const auto first = name.find_first_not_of(' ');
  const auto last = name.find_last_not_of(std::string(" \0", 2));
  name = first == std::string::npos ? "x86" : name.substr(first, last - first + 1);
  return name + " (family " + std::to_string(family) + " model " + std::to_string(model) +
         " stepping " + std::to_string(signature & 0xf) + ")";
}

// Leaf 4 (Intel) and leaf 0x8000001D (AMD) have one layout.
std::vector<Cache> x86_caches(int logical) {
  const bool amd = cpuid(0x80000000u).eax >= 0x8000001du && cpuid(0x8000001du).eax & 0x1fu;
  std::vector<Cache> caches;
  for (unsigned index = 0; index < 16; ++index) {
    const Registers r = cpuid(amd ? 0x8000001du : 4u, index);
    const unsigned type = r.eax & 0x1f;
    if (type == 0) break;
    if (type == 2) continue;  // instructions
    Cache cache;
    cache.level = (r.eax >> 5) & 7;
    cache.type = type == 3 ? "unified" : "data";
    cache.line = (r.ebx & 0xfff) + 1;
    cache.bytes = static_cast<std::int64_t>((r.ebx >> 22) + 1) * (((r.ebx >> 12) & 0x3ff) + 1) *
                  cache.line * (static_cast<std::int64_t>(r.ecx) + 1);
    cache.shared_by = std::min<int>(logical, ((r.eax >> 14) & 0xfff) + 1);
    caches.push_back(cache);
  }
  return caches;
}
#endif

#if !PERFKIT_X86
std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line, implementer, part;
  while (std::getline(file, line)) {
    const auto colon = line.find(": ");
    if (colon == std::string::npos) continue;
    const std::string value = line.substr(colon + 2);
    if (line.rfind("model name", 0) == 0) return value;
    if (line.rfind("CPU implementer", 0) == 0) implementer = value;
    if (line.rfind("CPU part", 0) == 0) part = value;
  }
  return implementer.empty() ? "unknown" : "implementer " + implementer + " part " + part;
}
#endif

const char* architecture() {
#if defined(__x86_64__)
  return "x86_64";
#elif defined(__i386__)
  return "i386";
#elif defined(__aarch64__)
  return "aarch64";
#elif defined(__riscv)
  return "riscv";
#elif defined(__powerpc64__)
  return "ppc64";
#else
  return "unknown";
#endif
}

}  // namespace

Probe probe() {
  Probe out;
  out.architecture = architecture();
  const std::vector<int> cpus = affinity();
  out.logical_cores = static_cast<int>(cpus.size());
  out.physical_cores = physical_cores(cpus);
  out.caches = sysfs_caches(cpus);
#if PERFKIT_X86
  out.cpu = x86_cpu();
  x86_isa(out);
  if (out.caches.empty()) out.caches = x86_caches(out.logical_cores);
#else
  out.cpu = cpu_name();
#endif
#if defined(__aarch64__)
  out.isa.emplace_back("neon");
  out.simd_bytes = 16;
#if defined(__linux__)
  if (getauxval(AT_HWCAP) & (1ul << 22)) out.isa.emplace_back("sve");
#endif
#endif
  std::stable_sort(out.caches.begin(), out.caches.end(),
                   [](const Cache& a, const Cache& b) { return a.level < b.level; });
  const long page = sysconf(_SC_PAGESIZE);
  if (page > 0) out.page_bytes = page;
  const std::string huge = "/sys/kernel/mm/transparent_hugepage/";
  out.huge_page_bytes = read_number(huge + "hpage_pmd_size", 0);
  const std::string modes = read_line(huge + "enabled");  // "always [madvise] never"
  const auto open = modes.find('['), close = modes.find(']');
  if (open != std::string::npos && close != std::string::npos && close > open)
    out.huge_pages = modes.substr(open + 1, close - open - 1);
  return out;
}

}  // namespace perfkit
