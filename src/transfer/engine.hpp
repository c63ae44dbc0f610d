#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cairn/comm.hpp"
#include "cairn/engine.hpp"
#include "cairn/manifest.hpp"
#include "os/file.hpp"
#include "plan/part_scan.hpp"

namespace cairn::detail {

/// Bytes in this rank's memory (dense row-major) that fill one extent of the container.
struct WriteItem {
  std::size_t tensor = 0;  ///< position in WriteJob::tensors
  const Extent* extent = nullptr;
  const std::byte* data = nullptr;  ///< null where the bytes come from a StagedSave
};

/// Of all items, as dense data. Local.
std::uint64_t bytes_of(std::span<const WriteItem> items, std::span<const TensorEntry> tensors);

struct WriteJob {
  std::filesystem::path file;            ///< exists and has its final size
  std::uint64_t nonce_at = 0;            ///< where in the file its nonce is
  std::uint64_t nonce = 0;               ///< by which every rank knows the file that rank 0 made
  std::span<const TensorEntry> tensors;  ///< of the container; their extents need not be filled
  std::vector<WriteItem> items;          ///< this rank's, ascending by offset in the file
  bool statistics = false;               ///< wanted in the reports
  bool crc32 = false;                    ///< wanted in the reports; CopyWriter knows it
  bool durable = false;                  ///< settle() will be told to make them durable
  std::function<void(std::uint64_t bytes_done)> progress;
};

/// Where a run of bytes starts.
struct FileRun {
  std::uint32_t file = 0;  ///< index into Manifest::files
  std::uint64_t offset = 0;
};

/// A piece of a tensor that is wanted in this rank's memory.
struct ReadItem {
  std::size_t tensor = 0;  ///< position in Manifest::tensors
  const Placement* piece = nullptr;
  std::byte* data = nullptr;
  /// Where the piece is one run of a file: most are, and such need no look at the tensor's extents.
  std::optional<FileRun> run;
};

/// The longest text of Writer::facts.
inline constexpr std::size_t kMostFacts = 4096;

/// Brings the bytes of a save into its file.
class Writer {
 public:
  virtual ~Writer() = default;
  /// Whether the file must be a valid HDF5 file while the bytes are written.
  virtual bool needs_signature() const = 0;
  /// Writes this rank's items and reports on their bytes in the order of the items; the file stays
  /// open for settle(). Collective. Errors: io, corrupt, mismatch (this rank finds another file
  /// under the path than rank 0), timeout.
  virtual std::vector<PartReport> write(const Comm& comm, const WriteJob& job) = 0;
  /// Makes durable what this rank wrote (where wanted) and closes the file. Failures that the
  /// system only tells now are reported here. Collective. Errors: io, timeout.
  void settle(const Comm& comm, bool durable);
  /// What is worth recording about how this rank's bytes were moved, as the text of a JSON object;
  /// empty: nothing. At most kMostFacts bytes. Local.
  virtual std::string facts() const { return {}; }
  /// Gives up a write that will not be settled, so that its file takes no more space. Local.
  virtual void abandon() noexcept { written_.reset(); }

 protected:
  /// Opens the file of `job` for write() and settle(). Local. Errors: not_found, io, mismatch.
  const File& open_partial(const WriteJob& job);

 private:
  // The descriptor that wrote also syncs: a new one may miss failures from before it was opened.
  std::optional<File> written_;
};

/// How bytes move between memory and a container. Both engines make and read the same containers.
class Engine : public Writer {
 public:
  /// Fills this rank's items. Returns how many bytes this rank read for that, or asked MPI-IO for.
  /// Collective. Errors: corrupt, io, timeout.
  virtual std::uint64_t read(const Comm& comm, const Manifest& manifest,
                             std::span<const ReadItem> items) = 0;
};

std::unique_ptr<Engine> make_engine(EngineKind kind, Transfer transfer, const MpioOptions& mpio);
/// For comparing options between ranks. Local.
std::uint64_t hash_of(const MpioOptions& mpio);

}  // namespace cairn::detail
