#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "cairn/manifest.hpp"
#include "os/block_writer.hpp"
#include "os/file.hpp"

namespace cairn::detail {

/// Turns runs of one file into few large requests: small neighbours are joined, through a buffer or
/// straight from or to their memory; larger ones have requests of their own. Runs should come in
/// ascending order; any order is correct.

class RunReader {
 public:
  explicit RunReader(const File& file) : file_(file) {}
  /// `to` must stay valid until flush().
  void add(std::uint64_t offset, std::byte* to, std::uint64_t bytes);
  void flush();
  /// Bytes of the requests so far, those between the runs of a request included.
  std::uint64_t bytes_read() const { return bytes_read_; }

 private:
  struct Run {
    std::uint64_t offset;
    std::byte* to;
    std::uint64_t bytes;
  };
  struct Request {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    std::uint64_t gaps = 0;  // bytes between its runs
    std::size_t first = 0;   // of its runs in runs_
    std::uint64_t bytes() const { return end - begin; }
  };

  bool waits_for(std::uint64_t offset) const;
  void read(const Request& request, std::span<const Run> runs);
  void read_through_buffer(const Request& request, std::span<const Run> runs);
  void read_scattered(const Request& request, std::span<const Run> runs);

  const File& file_;
  std::vector<Run> runs_;          // of all requests
  std::vector<Request> requests_;  // runs may still join the last one
  std::uint64_t bytes_read_ = 0;
  std::vector<std::byte> buffer_;
  std::vector<std::span<std::byte>> pieces_;
};

/// How bytes that are written come to the disk.
enum class WriteBack {
  later,       // when the system likes, or in File::sync()
  past_cache,  // not by way of the page cache; where the file system can't do that, begun at once
};

class RunWriter {
 public:
  /// `wrote(bytes)` is called after requests, on the calling thread.
  RunWriter(const File& file, std::string_view point, WriteBack write_back,
            std::function<void(std::uint64_t)> wrote);
  /// `from` must stay valid until release() or flush().
  void add(std::uint64_t offset, const std::byte* from, std::uint64_t bytes);
  /// Returns when the memory of the runs so far is not needed any more.
  void release();
  /// Bytes to hand to add() at a time, so that what add() touches is still in the cache afterwards.
  std::uint64_t window_bytes() const;
  /// Returns when all runs are with the file system.
  void flush();

 private:
  const File& file_;
  std::string_view point_;
  WriteBack write_back_;
  std::function<void(std::uint64_t)> wrote_;
  std::unique_ptr<BlockWriter> past_cache_;
  void write_pending();

  std::uint64_t begin_ = 0;
  std::uint64_t pending_bytes_ = 0;
  std::vector<std::span<const std::byte>> pending_;  // one behind the other in the file
  std::vector<std::byte> buffer_;
};

/// Adds a part of an extent: the bytes of `box`, the next of the extent's boxes, of whose dense
/// bytes `done` went before. `bytes` must stay valid until the flush.
void add_part(RunWriter& runs, const TensorEntry& tensor, const Extent& extent, const Box& box,
              std::span<const std::byte> bytes, std::uint64_t done);

}  // namespace cairn::detail
