#include "os/block_writer.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <optional>
#include <system_error>
#include <utility>

#include "base/throw.hpp"

namespace cairn::detail {
namespace {

// Offsets, sizes and memory of O_DIRECT are whole blocks of the disk: 512 or 4096 bytes.
constexpr std::uint64_t kBlock = 4096;
constexpr std::uint64_t kBufferBytes = 8 << 20;
// One more than threads: while all of them write, the next one fills.
constexpr std::size_t kThreads = 2;
constexpr std::size_t kBuffers = kThreads + 1;
// Shorter runs that no other follows are not worth a request to the disk each.
constexpr std::uint64_t kShortBytes = 64 << 10;

constexpr std::uint64_t block_below(std::uint64_t offset) { return offset / kBlock * kBlock; }
constexpr std::uint64_t block_above(std::uint64_t offset) {
  return block_below(offset + kBlock - 1);
}

}  // namespace

std::unique_ptr<BlockWriter> BlockWriter::open(const File& file, std::string_view point,
                                               std::function<void(std::uint64_t)> wrote) {
  std::optional<File> direct = file.reopen_past_cache();
  if (!direct) return nullptr;
  return std::unique_ptr<BlockWriter>(
      new BlockWriter(file, std::move(*direct), point, std::move(wrote)));
}

BlockWriter::BlockWriter(const File& file, File direct, std::string_view point,
                         std::function<void(std::uint64_t)> wrote)
    : file_(file), direct_(std::move(direct)), point_(point), wrote_(std::move(wrote)) {
  free_.resize(kBuffers);
}

BlockWriter::~BlockWriter() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
    waiting_.clear();
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void BlockWriter::add(std::uint64_t offset, const std::byte* from, std::uint64_t bytes) {
  while (bytes > 0) {
    if (current_.memory &&
        (offset != current_.end || current_.end == current_.base + kBufferBytes)) {
      submit();
    }
    if (!current_.memory) {
      current_ = take_free();
      current_.base = block_below(offset);
      current_.begin = current_.end = offset;
    }
    const std::uint64_t room = current_.base + kBufferBytes - offset;
    const std::uint64_t count = std::min(bytes, room);
    std::memcpy(current_.memory.get() + (offset - current_.base), from, count);
    current_.end += count;
    offset += count;
    from += count;
    bytes -= count;
  }
}

void BlockWriter::flush() {
  if (current_.memory) submit();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return in_flight_ == 0 && (waiting_.empty() || failure_); });
  settle(lock);
}

/// Tells of requests that are done. The lock is given up, because the callback may take its time.
void BlockWriter::settle(std::unique_lock<std::mutex>& lock) {
  if (failure_) std::rethrow_exception(failure_);
  const std::uint64_t bytes = std::exchange(written_, 0);
  lock.unlock();
  if (bytes != 0) wrote_(bytes);
  lock.lock();
}

BlockWriter::Buffer BlockWriter::take_free() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !free_.empty() || failure_; });
  settle(lock);
  // One with memory where there is one: a short save needs no more than that.
  const auto found = std::find_if(free_.begin(), free_.end(),
                                  [](const Buffer& buffer) { return buffer.memory != nullptr; });
  const auto chosen = found != free_.end() ? found : free_.end() - 1;
  Buffer buffer = std::move(*chosen);
  free_.erase(chosen);
  if (!buffer.memory) {
    buffer.memory = take_pages(kBufferBytes);
    if (!buffer.memory) throw std::bad_alloc();
  }
  return buffer;
}

/// Writes the edges and leaves whole blocks to the threads.
void BlockWriter::submit() {
  Buffer buffer = std::exchange(current_, Buffer{});
  const auto edge = [&](std::uint64_t begin, std::uint64_t end) {
    file_.write_at(begin, {buffer.memory.get() + (begin - buffer.base), end - begin}, point_);
    const std::lock_guard lock(mutex_);
    written_ += end - begin;
  };
  std::uint64_t begin = block_above(buffer.begin);
  std::uint64_t end = block_below(buffer.end);
  if (begin >= end || buffer.bytes() < kShortBytes) begin = end = buffer.end;
  if (buffer.begin < begin) edge(buffer.begin, begin);
  if (end < buffer.end) edge(end, buffer.end);
  buffer.begin = begin;
  buffer.end = end;
  {
    const std::lock_guard lock(mutex_);
    if (begin == end) {
      free_.push_back(std::move(buffer));
      return;
    }
    waiting_.push_back(std::move(buffer));
    if (threads_.size() < kThreads && waiting_.size() + in_flight_ > threads_.size()) {
      try {
        threads_.emplace_back([this] { serve(); });
      } catch (const std::system_error& error) {
        if (threads_.empty()) fail(Errc::io, "cannot start a thread that writes: {}", error.what());
      }
    }
  }
  changed_.notify_all();
}

/// What a thread does.
void BlockWriter::serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return ends_ || (!waiting_.empty() && !failure_); });
    if (ends_) return;
    Buffer buffer = std::move(waiting_.front());
    waiting_.pop_front();
    ++in_flight_;
    lock.unlock();
    std::exception_ptr failure;
    try {
      write(buffer);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    --in_flight_;
    written_ += buffer.bytes();
    free_.push_back(std::move(buffer));
    if (failure && !failure_) failure_ = failure;
    changed_.notify_all();
  }
}

void BlockWriter::write(const Buffer& buffer) {
  const std::span bytes(buffer.memory.get() + (buffer.begin - buffer.base), buffer.bytes());
  bool refused = false;
  {
    const std::lock_guard lock(mutex_);
    refused = refused_;
  }
  if (!refused && direct_.try_write_at(buffer.begin, bytes, point_)) return;
  file_.write_at(buffer.begin, bytes, refused ? point_ : std::string_view{});
  const std::lock_guard lock(mutex_);
  refused_ = true;
}

}  // namespace cairn::detail
