#include "heap.hpp"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace cairn::bench {
namespace {

std::atomic<std::uint64_t> in_use{0};
std::atomic<std::uint64_t> peak{0};
std::atomic<std::uint64_t> start{0};

void* counted(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  const std::uint64_t now = in_use += malloc_usable_size(memory);
  std::uint64_t known = peak;
  while (now > known && !peak.compare_exchange_weak(known, now)) {
  }
  return memory;
}

void release(void* memory) noexcept {
  if (memory != nullptr) in_use -= malloc_usable_size(memory);
  std::free(memory);
}

}  // namespace

void reset_heap_peak() {
  start = in_use.load();
  peak = in_use.load();
}

std::uint64_t heap_peak() { return peak - start; }

}  // namespace cairn::bench

void* operator new(std::size_t bytes) { return cairn::bench::counted(std::malloc(bytes)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  const auto unit = static_cast<std::size_t>(alignment);
  return cairn::bench::counted(std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit));
}
void operator delete(void* memory) noexcept { cairn::bench::release(memory); }
void operator delete(void* memory, std::size_t) noexcept { cairn::bench::release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { cairn::bench::release(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  cairn::bench::release(memory);
}
