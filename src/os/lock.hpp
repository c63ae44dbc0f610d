#pragma once

#include <filesystem>
#include <utility>

namespace cairn::detail {

/// An advisory lock on a file that exists for that alone; other processes, also on other nodes,
/// wait for it if they want to. Ends with the process, however that ends. Local.
class FileLock {
 public:
  FileLock() = default;
  ~FileLock();
  FileLock(FileLock&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), held_(std::exchange(other.held_, false)) {}
  FileLock& operator=(FileLock&&) = delete;

  /// True: nobody else has it now, or the file system knows no locks (then holds() is false).
  /// Errors: io.
  bool try_lock(const std::filesystem::path& path);
  /// Whether others are really kept out.
  bool holds() const { return held_; }

 private:
  int fd_ = -1;
  bool held_ = false;
};

}  // namespace cairn::detail
