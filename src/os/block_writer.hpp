#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "os/file.hpp"
#include "os/memory.hpp"

namespace cairn::detail {

/// Writes runs of one file past the page cache (O_DIRECT), several requests at a time: for bytes
/// that are to be durable at once, which the cache would only hold up. Whole blocks of the file go
/// by way of aligned buffers and threads of its own; the edges of a run, which share a block with
/// other bytes, and short runs go through the cache. Neighbouring runs are joined. All members are
/// Local and for one thread.
class BlockWriter {
 public:
  /// Nothing where the file system does not do that, or has no disk below. `wrote(bytes)` is called
  /// in add() and flush(), on their thread, after each request. `point` names the writes to fault
  /// injection. `file` must outlive the writer. Errors: io (no memory, no thread).
  static std::unique_ptr<BlockWriter> open(const File& file, std::string_view point,
                                           std::function<void(std::uint64_t)> wrote);
  ~BlockWriter();
  BlockWriter(const BlockWriter&) = delete;
  BlockWriter& operator=(const BlockWriter&) = delete;

  /// Takes a copy. Errors: those of File::write_at, also for earlier runs.
  void add(std::uint64_t offset, const std::byte* from, std::uint64_t bytes);
  /// Returns when everything is with the file system; File::sync makes it durable. Errors: those of
  /// add().
  void flush();

 private:
  /// Bytes of the file from `base` on, of which those in [begin, end) are here.
  struct Buffer {
    Pages memory;
    std::uint64_t base = 0;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    std::uint64_t bytes() const { return end - begin; }
  };

  BlockWriter(const File& file, File direct, std::string_view point,
              std::function<void(std::uint64_t)> wrote);
  Buffer take_free();
  void submit();
  void settle(std::unique_lock<std::mutex>& lock);
  void serve();
  void write(const Buffer& buffer);

  const File& file_;
  File direct_;
  std::string_view point_;
  std::function<void(std::uint64_t)> wrote_;
  Buffer current_;  // without memory: none begun

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<Buffer> waiting_;
  std::vector<Buffer> free_;
  std::size_t in_flight_ = 0;
  std::uint64_t written_ = 0;  // not yet told to wrote_
  bool refused_ = false;       // the file system does not take these requests after all
  bool ends_ = false;
  std::exception_ptr failure_;

  std::vector<std::thread> threads_;
};

}  // namespace cairn::detail
