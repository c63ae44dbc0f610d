#include "transfer/staging.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <utility>

#include "base/copy.hpp"
#include "base/throw.hpp"
#include "os/fault.hpp"
#include "plan/region.hpp"
#include "plan/slices.hpp"

namespace cairn::detail {

std::uint64_t StagingRoom::room_for(std::uint64_t bytes) {
  return (bytes / (kBlockBytes - kPartBytes) + 1) * kBlockBytes;
}

void StagingRoom::grow(std::uint64_t bytes) {
  const std::uint64_t wanted = std::max(bytes, kLeastBytes) / kBlockBytes;
  std::unique_lock lock(mutex_);
  if (wanted <= blocks_) return;
  const std::uint64_t more = (wanted - blocks_) * kBlockBytes;
  Pages memory = take_pages(more);
  if (!memory) {
    fail(Errc::io, "cannot take {} bytes to stage a save in: {}; lower async.budget_bytes", more,
         std::generic_category().message(errno));
  }
  std::byte* const start = memory.get();
  constexpr std::uint64_t kPage = 4096;
  for (std::uint64_t at = 0; at < more; at += kPage) start[at] = std::byte{0};
  memory_.push_back(std::move(memory));
  for (std::uint64_t at = 0; at < more; at += kBlockBytes) free_.push_back(start + at);
  blocks_ = wanted;
}

std::uint64_t StagingRoom::blocks() const {
  const std::lock_guard lock(mutex_);
  return blocks_;
}

std::uint64_t StagingRoom::free_blocks() const {
  const std::lock_guard lock(mutex_);
  return free_.size();
}

double StagingRoom::measure_copy_speed() {
  std::byte* const from = take();
  std::byte* const to = take();
  const auto start = std::chrono::steady_clock::now();
  copy_past_caches(to, from, kBlockBytes);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  give_back(to);
  give_back(from);
  return static_cast<double>(kBlockBytes) / seconds.count();
}

std::byte* StagingRoom::take() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) return nullptr;
  std::byte* const block = free_.back();
  free_.pop_back();
  return block;
}

void StagingRoom::give_back(std::byte* block) {
  const std::lock_guard lock(mutex_);
  free_.push_back(block);
  freed_.notify_all();
}

void StagingRoom::wake() {
  const std::lock_guard lock(mutex_);
  freed_.notify_all();
}

StagedSave::StagedSave(StagingRoom& room, std::span<const TensorEntry> tensors,
                       std::vector<WriteItem> items, bool keep)
    : room_(room), tensors_(tensors), items_(std::move(items)), keep_(keep) {
  for (const WriteItem& item : items_) {
    bytes_ += item.extent->box.elements() * item_bytes(tensors_[item.tensor].dtype);
  }
}

StagedSave::~StagedSave() {
  release();
  if (filling_.memory != nullptr) room_.give_back(filling_.memory);
}

bool StagedSave::advance() {
  {
    const std::lock_guard lock(mutex_);
    if (complete_ || released_) return true;
  }
  fault_point("stage");
  while (item_ < items_.size() && !released_) {
    if (!copy_item()) return false;
  }
  publish();
  const std::lock_guard lock(mutex_);
  complete_ = true;
  changed_.notify_all();
  return true;
}

void StagedSave::stage() {
  while (!advance()) {
    room_.wait_for_block([&] { return released_.load(); });
  }
}

/// Copies what is left of the current item; false when the room is full before that.
bool StagedSave::copy_item() {
  const WriteItem& item = items_[item_];
  const TensorEntry& tensor = tensors_[item.tensor];
  const std::uint64_t unit = item_bytes(tensor.dtype);
  const bool done = lies_in_rows(tensor, *item.extent)
                        ? copy_rows(item, unit)
                        : copy_dense(item, item.extent->box.elements() * unit);
  if (!done) return false;
  ++item_;
  offset_ = 0;
  return true;
}

bool StagedSave::copy_dense(const WriteItem& item, std::uint64_t bytes) {
  while (offset_ < bytes) {
    if (!has_room()) return false;
    copy_part(item, std::min(bytes - offset_, StagingRoom::kBlockBytes - filling_.used), 0);
  }
  return true;
}

/// A part must be a box, so that its runs in the file can be told.
bool StagedSave::copy_rows(const WriteItem& item, std::uint64_t unit) {
  if (offset_ == 0 && slices_.empty()) {
    slices_ = slices_of(item.extent->box, StagingRoom::kPartBytes / unit);
    std::reverse(slices_.begin(), slices_.end());
  }
  while (!slices_.empty()) {
    const std::uint64_t bytes = slices_.back().elements() * unit;
    if (bytes > StagingRoom::kBlockBytes - filling_.used) publish();
    if (!has_room()) return false;
    filling_.boxes.push_back(std::move(slices_.back()));
    slices_.pop_back();
    copy_part(item, bytes, filling_.boxes.size() - 1);
  }
  return true;
}

void StagedSave::copy_part(const WriteItem& item, std::uint64_t bytes, std::size_t box) {
  fault_point("stage.part");
  std::byte* const to = filling_.memory + filling_.used;
  copy_past_caches(to, item.data + offset_, bytes);
  filling_.parts.push_back({item_, to, bytes, box});
  filling_.used += bytes;
  offset_ += bytes;
}

/// Whether the block that is being filled has room for a byte, after getting another one if need
/// be.
bool StagedSave::has_room() {
  if (filling_.used == StagingRoom::kBlockBytes) publish();
  if (filling_.memory != nullptr) return true;
  filling_.memory = room_.take();
  if (filling_.memory != nullptr) return true;
  fault_point("stage.full");
  const std::lock_guard lock(mutex_);
  full_ = true;
  changed_.notify_all();
  return false;
}

/// Hands the block that is being filled to the writing thread.
void StagedSave::publish() {
  if (filling_.memory == nullptr) return;
  StagedBlock block = std::exchange(filling_, {});
  const std::lock_guard lock(mutex_);
  if (released_) {
    room_.give_back(block.memory);
    return;
  }
  ready_.push_back(std::move(block));
  changed_.notify_all();
}

void StagedSave::abort() {
  const std::lock_guard lock(mutex_);
  aborted_ = true;
  changed_.notify_all();
}

void StagedSave::wait_for_work() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return complete_ || full_ || aborted_; });
}

const StagedBlock* StagedSave::next() {
  std::unique_lock lock(mutex_);
  retire_current();
  changed_.wait(lock, [&] { return !ready_.empty() || complete_ || aborted_; });
  if (aborted_ && !complete_) fail(Errc::usage, "the save was given up while it was staged");
  if (ready_.empty()) return nullptr;
  current_ = std::move(ready_.front());
  ready_.pop_front();
  return &*current_;
}

/// The block that next() gave out is no longer looked at. Needs the lock.
void StagedSave::retire_current() {
  if (!current_) return;
  if (keep_) {
    kept_.push_back(std::move(*current_));
  } else {
    room_.give_back(current_->memory);
  }
  current_.reset();
}

void StagedSave::rewind() {
  const std::lock_guard lock(mutex_);
  retire_current();
  for (auto block = kept_.rbegin(); block != kept_.rend(); ++block) {
    ready_.push_front(std::move(*block));
  }
  kept_.clear();
}

void StagedSave::release() {
  {
    const std::lock_guard lock(mutex_);
    released_ = true;
    retire_current();
    for (const StagedBlock& block : ready_) room_.give_back(block.memory);
    for (const StagedBlock& block : kept_) room_.give_back(block.memory);
    ready_.clear();
    kept_.clear();
  }
  room_.wake();
}

}  // namespace cairn::detail
