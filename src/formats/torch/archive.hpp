#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cairn/manifest.hpp"
#include "formats/pickle/graph.hpp"
#include "formats/torch/storages.hpp"
#include "formats/torch/zip.hpp"
#include "os/file.hpp"

namespace cairn::detail::torch {

/// PyTorch's zip file: one folder with a pickle and the storages that its tensors are views of.
class Archive {
 public:
  /// Opens the archive that fills `bytes` bytes of `file` from `begin` on: in a directory of
  /// distributed checkpoints, a file holds many. Local. Errors: corrupt; unsupported (TorchScript,
  /// other archives, big-endian); unsafe; io.
  static Archive open(const File& file, std::uint64_t begin, std::uint64_t bytes);

  /// The name of the folder.
  const std::string& top() const { return top_; }
  const ZipTable& table() const { return table_; }
  /// The member `name` in the folder, or nullptr.
  const ZipMember* find(std::string_view name) const;
  /// The pickled object. Errors: corrupt, unsupported, unsafe, io.
  pickle::Graph read_pickle(const File& file) const;
  /// Fills in the storages' offsets. Errors: corrupt; unsupported (a compressed storage).
  void place(Storages& storages) const;
  /// Of all members that have one, as they lie in file 0.
  std::vector<Checksum> checksums() const { return stored(true); }
  /// The places of those that have none.
  std::vector<Checksum> unchecked() const { return stored(false); }
  /// A warning where PyTorch took none; else empty.
  std::string missing_checksums() const;
  /// JSON: {container, top, version, byteorder}.
  std::string describe() const;

 private:
  std::vector<Checksum> stored(bool checked) const;

  ZipTable table_;
  std::string top_;
  std::string version_;
  std::string byteorder_;
};

}  // namespace cairn::detail::torch
