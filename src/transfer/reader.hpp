#pragma once

#include <cstddef>
#include <memory>

#include "cairn/manifest.hpp"
#include "cairn/placement.hpp"

namespace cairn::detail {

/// Reads any part of any tensor of a manifest in one process, opening each file once. Local.
/// `manifest` must outlive the reader. Not for use from two threads.
class Reader {
 public:
  explicit Reader(const Manifest& manifest);
  ~Reader();
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  /// Fills `out` with `piece` (a box, or a flat range) of `tensor` in dense row-major order.
  /// Errors: corrupt (the extents do not cover the piece, or the file ends early), io.
  void read(const TensorEntry& tensor, const Placement& piece, std::byte* out);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cairn::detail
