#pragma once

#include <fmt/format.h>

#include <utility>

#include "cairn/error.hpp"

namespace cairn::detail {

/// Throws a local Error with a formatted text.
template <class... Args>
[[noreturn]] void fail(Errc code, fmt::format_string<Args...> text, Args&&... args) {
  throw Error(code, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace cairn::detail
