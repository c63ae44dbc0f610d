#include "os/environment.hpp"

#include <cstdlib>

namespace cairn::detail {

std::string environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? "" : value;
}

}  // namespace cairn::detail
