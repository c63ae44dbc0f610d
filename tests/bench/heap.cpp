#include "heap.hpp"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace cairn::bench {
namespace {

bool counting = false;
std::int64_t in_use = 0;  // beyond the start of the call; memory from before it may be freed
std::int64_t peak = 0;

void* counted(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  if (counting) {
    in_use += static_cast<std::int64_t>(malloc_usable_size(memory));
    peak = std::max(peak, in_use);
  }
  return memory;
}

void release(void* memory) noexcept {
  if (counting && memory != nullptr)
    in_use -= static_cast<std::int64_t>(malloc_usable_size(memory));
  std::free(memory);
}

}  // namespace

std::uint64_t heap_peak_of(const std::function<void()>& work) {
  in_use = 0;
  peak = 0;
  counting = true;
  work();
  counting = false;
  return static_cast<std::uint64_t>(peak);
}

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
