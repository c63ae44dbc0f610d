#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "os/memory.hpp"
#include "transfer/engine.hpp"

namespace cairn::detail {

/// Memory for copies of tensors on their way to a file: blocks of one size, taken from the system
/// once, never more than the budget. All members are Local and may be called from two threads.
class StagingRoom {
 public:
  static constexpr std::uint64_t kBlockBytes = 8 << 20;
  static constexpr std::uint64_t kLeastBytes = 2 * kBlockBytes;
  /// Boxes that lie in rows are copied in parts of this size, so less than this of a block may stay
  /// empty.
  static constexpr std::uint64_t kPartBytes = 1 << 20;
  /// Bytes of room in which `bytes` of any tensors fit at once.
  static std::uint64_t room_for(std::uint64_t bytes);

  /// Lets take() hand out blocks of `bytes` in all (rounded down, at least kLeastBytes); touches
  /// new ones, so that copying into them meets no page fault. Errors: io (no memory).
  void grow(std::uint64_t bytes);
  std::uint64_t blocks() const;
  std::uint64_t free_blocks() const;

  /// Bytes per second of a copy of one free block to another, by one try. Needs two.
  double measure_copy_speed();

  /// A free block, or null.
  std::byte* take();
  void give_back(std::byte* block);
  /// Waits until a block is free or `stop()`.
  template <class Stop>
  void wait_for_block(Stop&& stop) {
    std::unique_lock lock(mutex_);
    freed_.wait(lock, [&] { return !free_.empty() || stop(); });
  }
  /// Makes wait_for_block look at its stop condition again.
  void wake();

 private:
  mutable std::mutex mutex_;
  std::condition_variable freed_;
  std::vector<Pages> memory_;
  std::vector<std::byte*> free_;
  std::uint64_t blocks_ = 0;
};

/// Bytes of an item in a block; the parts of an item follow each other.
struct StagedPart {
  std::size_t item = 0;  ///< position in the job's items
  const std::byte* data = nullptr;
  std::uint64_t bytes = 0;
  std::size_t box = 0;  ///< of an item that lies in rows: position in the block's boxes
};

struct StagedBlock {
  std::byte* memory = nullptr;
  std::uint64_t used = 0;
  std::vector<StagedPart> parts;
  std::vector<Box> boxes;
};

/// The bytes of one save between the program's thread, which copies them in, and the thread that
/// writes them. The program's thread calls advance(), the other one next() and the rest.
class StagedSave {
 public:
  /// Lifetime: `room`, and what the items refer to. `keep`: holds the blocks until release(), so
  /// that rewind() can give them out again.
  StagedSave(StagingRoom& room, std::span<const TensorEntry> tensors, std::vector<WriteItem> items,
             bool keep);
  ~StagedSave();
  StagedSave(const StagedSave&) = delete;
  StagedSave& operator=(const StagedSave&) = delete;

  const std::vector<WriteItem>& items() const { return items_; }
  std::uint64_t bytes() const { return bytes_; }

  /// Copies as much as there is room for; whether all is copied, or nobody wants it any more.
  bool advance();
  /// Copies all of it; waits for room where there is none.
  void stage();
  /// Nothing more will be copied: the save is incomplete. What waits in next() fails.
  void abort();

  /// Waits until there is something to do: all is copied, there was no room for more, or it was
  /// given up. Writing while the program copies would only slow the copy.
  void wait_for_work();
  /// The next block in the order of the items, or null after the last; waits for it. It is valid
  /// until the next call of next(), rewind() or release(). Errors: usage after abort().
  const StagedBlock* next();
  /// Starts over at the first block; only where blocks are kept.
  void rewind();
  /// Gives all blocks back; what is not copied yet is not wanted any more.
  void release();

 private:
  bool copy_item();
  bool copy_dense(const WriteItem& item, std::uint64_t bytes);
  bool copy_rows(const WriteItem& item, std::uint64_t unit);
  void copy_part(const WriteItem& item, std::uint64_t bytes, std::size_t box);
  bool has_room();
  void publish();
  void retire_current();

  StagingRoom& room_;
  std::span<const TensorEntry> tensors_;
  std::vector<WriteItem> items_;
  std::uint64_t bytes_ = 0;
  bool keep_;

  // The program's thread.
  std::size_t item_ = 0;
  std::vector<Box> slices_;   // of an item in rows; last one first
  std::uint64_t offset_ = 0;  // into the item
  StagedBlock filling_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<StagedBlock> ready_;
  std::vector<StagedBlock> kept_;
  std::optional<StagedBlock> current_;
  bool complete_ = false;
  bool full_ = false;  // there was no room for a copy
  bool aborted_ = false;
  std::atomic<bool> released_ = false;
};

/// Writes what a StagedSave holds with POSIX calls; no HDF5. Not used by two threads.
class StagedWriter final : public Writer {
 public:
  explicit StagedWriter(StagedSave& staged) : staged_(staged) {}
  bool needs_signature() const override { return false; }
  std::vector<PartReport> write(const Comm& comm, const WriteJob& job) override;

 private:
  StagedSave& staged_;
};

}  // namespace cairn::detail
