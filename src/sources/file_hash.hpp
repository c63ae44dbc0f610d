#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/sha256.hpp"
#include "os/file.hpp"

namespace cairn::detail {

/// The SHA-256 of a file, a window at a time, so that who hashes a large one can look at the time
/// and meet others in between. Local. Errors: not_found, io, corrupt (it becomes shorter
/// meanwhile).
class FileHash {
 public:
  explicit FileHash(const std::filesystem::path& path);
  /// Reads the next window; whether more is to come.
  bool goes_on();
  std::uint64_t size() const { return size_; }
  /// Once, when nothing is to come: in hexadecimal.
  std::string hex() { return to_hex(hash_.finish()); }

 private:
  File file_;
  std::uint64_t size_;
  std::uint64_t at_ = 0;
  std::vector<std::byte> window_;
  Sha256 hash_;
};

}  // namespace cairn::detail
