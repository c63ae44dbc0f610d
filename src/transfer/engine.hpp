#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "cairn/comm.hpp"
#include "cairn/engine.hpp"
#include "cairn/manifest.hpp"

namespace cairn::detail {

/// A piece of a tensor in this rank's memory (dense row-major) that fills one extent of the
/// container.
struct WriteItem {
  std::size_t tensor = 0;  ///< position in WriteJob::tensors
  std::size_t extent = 0;  ///< position in that tensor's extents
  const std::byte* data = nullptr;
};

struct WriteJob {
  std::filesystem::path file;  ///< exists, has its final size and HDF5's metadata
  std::span<const TensorEntry> tensors;
  std::vector<WriteItem> items;  ///< this rank's, ascending by offset in the file
  std::function<void(std::uint64_t bytes_done)> progress;
};

/// A piece of a tensor that is wanted in this rank's memory.
struct ReadItem {
  std::size_t tensor = 0;  ///< position in Manifest::tensors
  Placement piece;
  std::byte* data = nullptr;
};

/// How bytes move between memory and a container. Both engines make and read the same containers.
class Engine {
 public:
  virtual ~Engine() = default;
  /// Whether the file must be a valid HDF5 file while the bytes are written.
  virtual bool needs_signature() const = 0;
  /// Writes this rank's items and returns their digests in the order of the items. Collective; on
  /// return the bytes are with the operating system, not yet durable. Errors: io, corrupt, timeout.
  virtual std::vector<std::uint64_t> write(const Comm& comm, const WriteJob& job) = 0;
  /// Fills this rank's items. Collective. Errors: corrupt, io, timeout.
  virtual void read(const Comm& comm, const Manifest& manifest,
                    std::span<const ReadItem> items) = 0;
};

std::unique_ptr<Engine> make_engine(EngineKind kind, Transfer transfer);

class Reader;

/// XXH3-64 of one extent as the file holds it. Local. Errors: corrupt, io.
std::uint64_t digest_in_file(Reader& reader, const TensorEntry& tensor, const Extent& extent);

}  // namespace cairn::detail
