#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "cairn/comm.hpp"

namespace cairn::detail {

/// An argument that must be the same on all ranks, by its hash.
struct Argument {
  std::string_view subject;  ///< "path", as the error names it
  std::uint64_t hash = 0;
};

/// Checks that all ranks gave the same arguments and, in the same message, replaces `maxima` by
/// their element-wise maximum over the ranks. Collective; equal numbers of both on all ranks.
/// Errors: mismatch, naming the first argument that differs.
CAIRN_EXPORT void require_same(const Comm& comm, std::string_view step,
                               std::span<const Argument> arguments,
                               std::span<std::uint64_t> maxima = {});

}  // namespace cairn::detail
