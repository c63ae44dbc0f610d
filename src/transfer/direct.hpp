#pragma once

#include "transfer/engine.hpp"

namespace cairn::detail {

/// Each rank reads and writes its own extents with POSIX calls; no HDF5 and no MPI while bytes
/// move.
class DirectEngine final : public Engine {
 public:
  bool needs_signature() const override { return false; }
  std::vector<PartReport> write(const Comm& comm, const WriteJob& job) override;
  std::uint64_t read(const Comm& comm, const Manifest& manifest,
                     std::span<const ReadItem> items) override;
};

}  // namespace cairn::detail
