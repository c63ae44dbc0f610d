#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cairn/export.hpp"

namespace cairn::detail {

/// What a program writes to its stdout; nothing where it can't be started, fails, or does not end
/// within `limit`, or before `given_up` says so (it is killed then). `words`: the program, looked
/// up in PATH, and its arguments. Local.
CAIRN_EXPORT std::optional<std::string> output_of(const std::vector<std::string>& words,
                                                  std::chrono::milliseconds limit,
                                                  const std::function<bool()>& given_up = {});

}  // namespace cairn::detail
