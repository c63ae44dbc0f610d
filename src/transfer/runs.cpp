#include "transfer/runs.hpp"

#include <algorithm>
#include <cstring>

#include "mpi/time_limit.hpp"
#include "plan/region.hpp"

namespace cairn::detail {
namespace {

constexpr std::uint64_t kDirectBytes = 1 << 20;     // from here on a request of its own, no copy
constexpr std::uint64_t kBufferBytes = 4 << 20;     // longest joined request
constexpr std::uint64_t kMostReadBytes = 64 << 20;  // between looks at the time limit
constexpr std::uint64_t kRequestBytes = 8 << 20;    // of one run
constexpr std::uint64_t kCopyBytes = 256 << 10;     // of a run that is copied first
constexpr std::uint64_t kGapBytes = 64 << 10;       // reading this much for nothing beats a request
constexpr std::uint64_t kScatterBytes = 2
                                        << 10;  // below it a copy is cheaper than a vector's entry

}  // namespace

void RunReader::add(std::uint64_t offset, std::byte* to, std::uint64_t bytes) {
  if (bytes == 0) return;
  if (bytes >= kDirectBytes) {
    for (std::uint64_t at = 0; at < bytes; at += kMostReadBytes) {
      check_time_limit();
      file_.read_at(offset + at, {to + at, std::min(kMostReadBytes, bytes - at)});
    }
    return;
  }
  const bool joins = !pending_.empty() && offset >= end_ && offset - end_ <= kGapBytes &&
                     offset + bytes - begin_ <= kBufferBytes;
  if (!joins) {
    flush();
    begin_ = offset;
  }
  pending_.push_back({offset, to, bytes});
  end_ = offset + bytes;
}

void RunReader::flush() {
  if (pending_.empty()) return;
  check_time_limit();
  if (pending_.size() == 1) {
    file_.read_at(begin_, {pending_.front().to, pending_.front().bytes});
  } else if ((end_ - begin_) / pending_.size() < kScatterBytes) {
    read_through_buffer();
  } else {
    read_scattered();
  }
  pending_.clear();
}

void RunReader::read_through_buffer() {
  buffer_.resize(end_ - begin_);
  file_.read_at(begin_, buffer_);
  for (const Run& run : pending_) {
    std::memcpy(run.to, buffer_.data() + (run.offset - begin_), run.bytes);
  }
}

void RunReader::read_scattered() {
  buffer_.resize(kGapBytes);
  pieces_.clear();
  std::uint64_t at = begin_;
  for (const Run& run : pending_) {
    if (run.offset != at) pieces_.push_back(std::span(buffer_).first(run.offset - at));
    pieces_.push_back({run.to, run.bytes});
    at = run.offset + run.bytes;
  }
  file_.read_scattered(begin_, pieces_);
}

RunWriter::RunWriter(const File& file, std::string_view point, WriteBack write_back,
                     std::function<void(std::uint64_t)> wrote)
    : file_(file), point_(point), write_back_(write_back), wrote_(std::move(wrote)) {
  if (write_back == WriteBack::past_cache) past_cache_ = BlockWriter::open(file, point, wrote_);
}

std::uint64_t RunWriter::window_bytes() const { return past_cache_ ? kCopyBytes : kRequestBytes; }

void RunWriter::add(std::uint64_t offset, const std::byte* from, std::uint64_t bytes) {
  if (bytes == 0) return;
  if (past_cache_) {
    past_cache_->add(offset, from, bytes);
    return;
  }
  const bool joins = !pending_.empty() && offset == begin_ + pending_.size() &&
                     pending_.size() + bytes <= kBufferBytes;
  if (joins && from == pending_.data() + pending_.size() && buffer_.empty()) {
    pending_ = {pending_.data(), pending_.size() + bytes};
    return;
  }
  if (joins && bytes < kDirectBytes) {
    if (buffer_.empty()) buffer_.assign(pending_.begin(), pending_.end());
    buffer_.insert(buffer_.end(), from, from + bytes);
    pending_ = buffer_;
    return;
  }
  release();
  begin_ = offset;
  pending_ = {from, bytes};
  if (bytes >= kDirectBytes) release();
}

void RunWriter::flush() {
  if (past_cache_) past_cache_->flush();
  release();
}

void RunWriter::release() {
  if (pending_.empty()) return;
  file_.write_at(begin_, pending_, point_);
  if (write_back_ != WriteBack::later) file_.begin_write_back(begin_, pending_.size());
  wrote_(pending_.size());
  pending_ = {};
  buffer_.clear();
}

void add_part(RunWriter& runs, const TensorEntry& tensor, const Extent& extent, const Box& box,
              std::span<const std::byte> bytes, std::uint64_t done) {
  const std::uint64_t item = item_bytes(tensor.dtype);
  if (!lies_in_rows(tensor, extent)) {
    runs.add(extent.offset + done, bytes.data(), bytes.size());
    return;
  }
  const Region in_memory = dense_region(tensor.shape, false, box, 0, item);
  const Region in_file = region_of(tensor, extent);
  for_each_run(box, in_file, in_memory, item,
               [&](std::uint64_t at, std::uint64_t from, std::uint64_t count) {
                 runs.add(at, bytes.data() + from, count);
               });
}

}  // namespace cairn::detail
