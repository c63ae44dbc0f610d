#include "os/memory.hpp"

#include <sys/mman.h>

#include <cstdlib>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace cairn::detail {

void Unmap::operator()(std::byte* memory) const { munmap(memory, bytes); }

Pages take_pages(std::size_t bytes) {
  void* const memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return {nullptr, Unmap{}};
  madvise(memory, bytes, MADV_HUGEPAGE);  // a wish
  return {static_cast<std::byte*>(memory), Unmap{bytes}};
}

void give_back_freed_memory() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

}  // namespace cairn::detail
