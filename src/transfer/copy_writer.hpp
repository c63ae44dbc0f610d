#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "cairn/manifest.hpp"
#include "os/early_write_back.hpp"
#include "transfer/engine.hpp"
#include "transfer/reader.hpp"

namespace cairn::detail {

/// Writes tensors whose bytes lie in other files, with POSIX calls and through a window, so that
/// none is ever in memory as a whole; converts dtypes on the way. What was written is read back and
/// compared; where it is to be durable, the disk is at work from the first window until settle(),
/// whatever the caller does in between.
class CopyWriter final : public Writer {
 public:
  /// `sources` has, for each item of the job, the position in `manifest.tensors` of the tensor of
  /// the same shape whose elements it takes. About twice `window_bytes` are taken. Lifetime:
  /// `manifest`.
  CopyWriter(const Manifest& manifest, std::vector<std::size_t> sources,
             std::uint64_t window_bytes);
  bool needs_signature() const override { return false; }
  /// Errors, besides those of every Writer: those of Reader; io, where what is in the file is not
  /// what was written.
  std::vector<PartReport> write(const Comm& comm, const WriteJob& job) override;
  void abandon() noexcept override;

 private:
  struct Part;
  struct Window;
  std::vector<Part> parts_of(const WriteJob& job) const;
  void fill(const WriteJob& job, Window& window, Reader& reader) const;
  void copy(const WriteJob& job, const File& file, std::vector<PartReport>& reports);

  const Manifest& manifest_;
  std::vector<std::size_t> sources_;
  std::uint64_t window_bytes_;
  std::optional<EarlyWriteBack> write_back_;
};

}  // namespace cairn::detail
