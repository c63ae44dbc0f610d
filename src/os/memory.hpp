#pragma once

#include <cstddef>
#include <memory>

namespace cairn::detail {

struct Unmap {
  std::size_t bytes = 0;
  void operator()(std::byte* memory) const;
};
/// Pages of this process, whole ones, which go back to the system when they are freed: malloc keeps
/// some of what large blocks took for later.
using Pages = std::unique_ptr<std::byte, Unmap>;

/// Pages of zeros, large ones where the system has them; nothing where there are none (errno says
/// why). Local.
Pages take_pages(std::size_t bytes);

/// Gives freed memory that the C library keeps for later back to the system. Local.
void give_back_freed_memory();

}  // namespace cairn::detail
