#pragma once

#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>

#include "os/file.hpp"

namespace cairn::detail {

/// Has the disk begin with what the page cache holds of a file while its writer does other things:
/// a File::sync() at the end then waits for what is left. On a thread of its own, because the
/// request for that waits while the disk's queue is full. It is a hint: what comes of the bytes,
/// File::sync() of whoever wrote them finds out. All members are for one thread. Local.
class EarlyWriteBack {
 public:
  /// Errors: not_found, io (also: no thread).
  explicit EarlyWriteBack(const std::filesystem::path& file);
  /// Waits for the request that is on its way.
  ~EarlyWriteBack();
  EarlyWriteBack(const EarlyWriteBack&) = delete;
  EarlyWriteBack& operator=(const EarlyWriteBack&) = delete;

  /// There is more to write, wherever in the file.
  void more();

 private:
  void serve();

  File file_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  bool more_ = false;
  bool ends_ = false;

  std::thread thread_;
};

}  // namespace cairn::detail
