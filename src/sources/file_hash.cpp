#include "sources/file_hash.hpp"

#include <algorithm>

namespace cairn::detail {
namespace {

constexpr std::uint64_t kWindowBytes = 4 << 20;

}  // namespace

FileHash::FileHash(const std::filesystem::path& path)
    : file_(File::open_read(path)), size_(file_.size()) {}

bool FileHash::goes_on() {
  window_.resize(std::min(kWindowBytes, size_ - at_));
  file_.read_at(at_, window_);
  hash_.update(window_);
  at_ += window_.size();
  return at_ < size_;
}

}  // namespace cairn::detail
