#pragma once

#include <optional>
#include <string_view>

#include "cairn/dtype.hpp"

namespace cairn::detail {

/// The inverse of to_string(DType); nothing for any other name. Local.
std::optional<DType> dtype_from_name(std::string_view name);

}  // namespace cairn::detail
