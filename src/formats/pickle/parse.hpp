#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "formats/pickle/graph.hpp"

namespace cairn::detail::pickle {

/// What one pickle may cost. Python's own writer stops at about 1000 nested values.
struct Limits {
  std::uint64_t memory_bytes = 128 << 20;  ///< of the graph, beyond the stream itself
  std::size_t depth = 2000;                ///< values nested in each other
  std::size_t digits = 4300;               ///< of an integer: Python's own limit for texts
};

/// Limits for a pickle that describes many things and may be as large as there are: the graph may
/// take more, in proportion to the stream, and be nested as it likes. Its reader must not recurse.
Limits limits_of_table(std::uint64_t stream_bytes);

/// The values of the pickle at the start of `bytes` (protocols 0 to 5). Nothing is imported or
/// called: a class becomes its name, an object the record of how it would have been made. `what`
/// names the stream in errors. Local. Errors: corrupt; unsupported (newer protocols, buffers
/// outside the stream); unsafe (a name that executes or imports, or a limit passed).
Graph parse(std::vector<std::byte> bytes, std::string_view what, const Limits& limits = {});

}  // namespace cairn::detail::pickle
