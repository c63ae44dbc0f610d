#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cairn/checkpoint.hpp"
#include "cairn/comm.hpp"
#include "cairn/load.hpp"
#include "cairn/manifest.hpp"

namespace cairn::detail {

/// The formats that cairn writes.
enum class TargetFormat {
  cairn,
  safetensors,
  torch,      ///< what torch.load reads
  lightning,  ///< the same, with the keys of Lightning's checkpoints
};

/// What a conversion does not write, and why.
struct LeftOut {
  std::string name;
  std::string why;
};

struct ConvertOptions {
  TargetFormat to = TargetFormat::cairn;
  bool overwrite = false;     ///< what is at the target is replaced; otherwise that is an Error
  bool weights_only = false;  ///< only what is or would be below `model/`, and no documents
  TensorFilter select;        ///< which tensors, by their names in the source
  /// Names of the source that start with the first get the second in its place.
  std::vector<std::pair<std::string, std::string>> rename;
  std::optional<DType> dtype;          ///< floats become this one
  std::map<std::string, DType> casts;  ///< by name in the source: floats that become these
  std::uint64_t memory_bytes = std::uint64_t{256} << 20;  ///< for bytes on their way, on each rank
  /// safetensors: where not 0, the target is an index, and beside it are shards of at most so many
  /// bytes of tensors, or one tensor.
  std::uint64_t shard_bytes = 0;
  bool durable = true;
  /// Called on each rank with its own bytes. Must not communicate, nor throw.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;
};

struct ConvertResult {
  std::uint64_t tensors = 0;
  std::uint64_t bytes = 0;        ///< of the tensors, as written
  std::vector<TensorCast> casts;  ///< by the names in the target
  std::vector<LeftOut> left_out;
};

/// Writes the checkpoint `source` to `target` in another format, or another form of the same: all
/// ranks copy, through windows, and read back what they wrote. What the source has digests of is
/// checked before the target appears. The target appears when it is whole. Collective; arguments
/// are the same on all ranks. Errors: usage (the target exists, a name that the target cannot
/// have), not_found (the filter matches nothing), mismatch (two tensors of one name), unsupported,
/// corrupt, io, timeout.
CAIRN_EXPORT ConvertResult convert_checkpoint(const Comm& comm, const Manifest& source,
                                              const std::filesystem::path& target,
                                              const ConvertOptions& options);

}  // namespace cairn::detail
