#pragma once

#include <string>
#include <utility>

#include "formats/hdf5/parallel.hpp"
#include "transfer/engine.hpp"

namespace cairn::detail {

/// Bytes move through parallel HDF5. Because MPI-IO is known to report success for data that it did
/// not write, each rank reads its extents back and compares digests.
class MpioEngine final : public Engine {
 public:
  MpioEngine(Transfer transfer, MpioOptions options)
      : collective_(transfer == Transfer::collective), options_(std::move(options)) {}

  bool needs_signature() const override { return true; }
  std::vector<PartReport> write(const Comm& comm, const WriteJob& job) override;
  std::uint64_t read(const Comm& comm, const Manifest& manifest,
                     std::span<const ReadItem> items) override;
  /// The MPI library, its I/O component and the hints in force; on rank 0.
  std::string facts() const override { return facts_; }

 private:
  /// Before MPI-IO is used for the first time. Local. Errors: usage, unsupported.
  void choose_component();
  ParallelIo parallel_io(const Comm& comm) const;
  /// On rank 0: tells, once, which hints have no effect, and notes the facts. Local.
  void take_note(const Comm& comm, const HintMap& in_force);

  bool collective_;
  MpioOptions options_;
  bool chosen_ = false;
  std::string facts_;
};

}  // namespace cairn::detail
