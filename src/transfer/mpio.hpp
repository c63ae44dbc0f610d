#pragma once

#include "transfer/engine.hpp"

namespace cairn::detail {

/// Bytes move through parallel HDF5. Because MPI-IO is known to report success for data that it did
/// not write, each rank reads its extents back and compares digests.
class MpioEngine final : public Engine {
 public:
  explicit MpioEngine(Transfer transfer) : collective_(transfer == Transfer::collective) {}

  bool needs_signature() const override { return true; }
  std::vector<PartReport> write(const Comm& comm, const WriteJob& job) override;
  void read(const Comm& comm, const Manifest& manifest, std::span<const ReadItem> items) override;

 private:
  bool collective_;
};

}  // namespace cairn::detail
