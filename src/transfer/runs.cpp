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
constexpr std::uint64_t kScatterBytes = 2 << 10;    // below it a copy is cheaper than an iovec
constexpr std::size_t kMostPieces = 64 << 10;       // of a joined request

// What lies between two runs of a request is read for nothing.
//  - Less than a sector always: the storage reads nothing more for it, and a request costs as much
//    as a copy of a few.
//  - Up to 64 KiB while it is a small share of the wanted bytes, as a tensor between others that
//    are wanted is. It must not be more: for columns of a matrix that lies in rows, every rank
//    would read all of it, and from the page cache a request for each row takes no longer than
//    that.
constexpr std::uint64_t kSectorBytes = 512;
constexpr std::uint64_t kGapBytes = 64 << 10;
constexpr std::uint64_t kGapShare = 64;  // one byte in so many

// The system reads ahead where runs follow each other by less than a page. Of others the disk is
// told before they are read, many at a time: one by one they would take as long as it needs for
// each (measured: 6 times as long).
constexpr std::uint64_t kPageBytes = 4 << 10;
constexpr std::uint64_t kShortBytes = 128 << 10;  // longer requests are worth a wait
constexpr std::size_t kMostWaiting = 256;

bool may_join(std::uint64_t gap, std::uint64_t gaps, std::uint64_t wanted) {
  return gap < kSectorBytes || (gap <= kGapBytes && (gaps + gap) * kGapShare <= wanted);
}

}  // namespace

void RunReader::add(std::uint64_t offset, std::byte* to, std::uint64_t bytes) {
  if (bytes == 0) return;
  if (bytes >= kDirectBytes) {
    for (std::uint64_t at = 0; at < bytes; at += kMostReadBytes) {
      check_time_limit();
      file_.read_at(offset + at, {to + at, std::min(kMostReadBytes, bytes - at)});
    }
    bytes_read_ += bytes;
    return;
  }
  if (!requests_.empty()) {
    Request& last = requests_.back();
    if (offset >= last.end && offset + bytes - last.begin <= kBufferBytes &&
        may_join(offset - last.end, last.gaps, last.bytes() - last.gaps + bytes)) {
      runs_.push_back({offset, to, bytes});
      last.gaps += offset - last.end;
      last.end = offset + bytes;
      return;
    }
    if (!waits_for(offset)) flush();
  }
  requests_.push_back({offset, offset + bytes, 0, runs_.size()});
  runs_.push_back({offset, to, bytes});
}

/// Whether the last request is read together with one that begins at `offset`.
bool RunReader::waits_for(std::uint64_t offset) const {
  const Request& last = requests_.back();
  const bool is_far = offset < last.begin || offset >= last.end + kPageBytes;
  return is_far && last.bytes() < kShortBytes && requests_.size() < kMostWaiting;
}

void RunReader::flush() {
  if (requests_.size() > 1) {
    for (const Request& request : requests_) file_.begin_read(request.begin, request.bytes());
  }
  for (std::size_t r = 0; r < requests_.size(); ++r) {
    const Request& request = requests_[r];
    const std::size_t end = r + 1 < requests_.size() ? requests_[r + 1].first : runs_.size();
    check_time_limit();
    read(request, std::span(runs_).subspan(request.first, end - request.first));
    bytes_read_ += request.bytes();
  }
  requests_.clear();
  runs_.clear();
}

void RunReader::read(const Request& request, std::span<const Run> runs) {
  if (runs.size() == 1) {
    file_.read_at(request.begin, {runs.front().to, runs.front().bytes});
  } else if (request.bytes() / runs.size() < kScatterBytes) {
    read_through_buffer(request, runs);
  } else {
    read_scattered(request, runs);
  }
}

void RunReader::read_through_buffer(const Request& request, std::span<const Run> runs) {
  buffer_.resize(request.bytes());
  file_.read_at(request.begin, buffer_);
  for (const Run& run : runs) {
    std::memcpy(run.to, buffer_.data() + (run.offset - request.begin), run.bytes);
  }
}

void RunReader::read_scattered(const Request& request, std::span<const Run> runs) {
  buffer_.resize(kGapBytes);
  pieces_.clear();
  std::uint64_t at = request.begin;
  for (const Run& run : runs) {
    if (run.offset != at) pieces_.push_back(std::span(buffer_).first(run.offset - at));
    pieces_.push_back({run.to, run.bytes});
    at = run.offset + run.bytes;
  }
  file_.read_scattered(request.begin, pieces_);
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
  const bool joins = !pending_.empty() && offset == begin_ + pending_bytes_ &&
                     pending_bytes_ + bytes <= kBufferBytes && pending_.size() < kMostPieces;
  if (!joins) release();
  if (pending_.empty()) begin_ = offset;
  if (!pending_.empty() && pending_.back().data() + pending_.back().size() == from) {
    pending_.back() = {pending_.back().data(), pending_.back().size() + bytes};
  } else {
    pending_.push_back({from, bytes});
  }
  pending_bytes_ += bytes;
  if (bytes >= kDirectBytes) release();
}

void RunWriter::flush() {
  if (past_cache_) past_cache_->flush();
  release();
}

void RunWriter::release() {
  if (pending_.empty()) return;
  write_pending();
  if (write_back_ != WriteBack::later) file_.begin_write_back(begin_, pending_bytes_);
  wrote_(pending_bytes_);
  pending_.clear();
  pending_bytes_ = 0;
}

void RunWriter::write_pending() {
  if (pending_.size() > 1 && pending_bytes_ / pending_.size() < kScatterBytes) {
    buffer_.clear();
    for (const auto& piece : pending_) buffer_.insert(buffer_.end(), piece.begin(), piece.end());
    file_.write_at(begin_, buffer_, point_);
  } else {
    file_.write_gathered(begin_, pending_, point_);
  }
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
