#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cairn/manifest.hpp"

namespace cairn::detail {

/// A safetensors file that is to be written.
struct SafetensorsLayout {
  std::string head;  ///< the header's length and the header: where the tensors' bytes start
  std::vector<TensorEntry> tensors;    ///< in the order of the file, with offsets, without extents
  std::vector<std::size_t> positions;  ///< of each in the tensors that were given
  std::uint64_t file_bytes = 0;
};

/// Lays out the tensors (names, dtypes and shapes count) as the format's own library does: the same
/// tensors and metadata give the same bytes. `metadata` is a JSON object of texts, or empty. Local.
/// Errors: unsupported, naming a tensor whose dtype the format lacks; a header beyond its limit.
SafetensorsLayout lay_out_safetensors(std::span<const TensorEntry> tensors,
                                      const std::string& metadata);

}  // namespace cairn::detail
