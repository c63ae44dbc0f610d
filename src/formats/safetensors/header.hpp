#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cairn/manifest.hpp"
#include "formats/table_bytes.hpp"

namespace cairn::detail {

/// What the header of a safetensors file says.
struct SafetensorsHeader {
  /// In the header's order. Offsets count from the start of the file's bytes.
  std::vector<TensorEntry> tensors;
  /// `__metadata__`, in the header's order; nothing where the header has none.
  std::optional<std::vector<std::pair<std::string, std::string>>> metadata;
};

/// Reads the header's text, strictly: every key known and once, names without NUL, and the tensors
/// tile the `data_bytes` that follow the header. `data_start` is where those start in the file;
/// `table_bytes` counts the tensors. Local. Errors: corrupt; unsupported (a dtype that cairn has
/// not, such as one of less than a byte); unsafe (a name that other programs would cut off, or a
/// table that fills the memory).
SafetensorsHeader read_safetensors_header(std::string_view text, std::uint64_t data_start,
                                          std::uint64_t data_bytes, TableBytes& table_bytes);

}  // namespace cairn::detail
