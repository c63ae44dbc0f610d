#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::detail {

/// RFC 4648, section 4, with padding. Local.
std::string base64_of(std::span<const std::byte> bytes);
/// The inverse. Local. Errors: corrupt.
std::vector<std::byte> bytes_of_base64(std::string_view text);

}  // namespace cairn::detail
