#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace cairn::detail {

/// The next code point of `text` at `at`, which it moves on; nothing where it is ill-formed. Local.
std::optional<std::uint32_t> next_code_point(std::string_view text, std::size_t& at);

/// Whether `text` is well-formed UTF-8, without surrogates. Local.
bool is_utf8(std::string_view text);

}  // namespace cairn::detail
