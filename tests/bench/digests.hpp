#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace cairn::bench {

/// How fast one rank looks at bytes that are in its cache, as they are when a save writes them.
struct LookSpeed {
  std::string name;
  double bytes_per_s = 0;  ///< by the processor's time; median of several turns
  double min_bytes_per_s = 0;
  double max_bytes_per_s = 0;
};

/// The digest of tensors, the one of everything else, and statistics of f32, taking turns. Local.
std::vector<LookSpeed> measure_looks();

}  // namespace cairn::bench
