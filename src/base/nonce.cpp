#include "base/nonce.hpp"

#include <random>

namespace cairn::detail {

std::uint64_t random_nonce() {
  std::random_device device;
  return std::uint64_t{device()} << 32 | device() | 1;
}

}  // namespace cairn::detail
