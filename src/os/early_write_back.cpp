#include "os/early_write_back.hpp"

#include <system_error>

#include "base/throw.hpp"
#include "os/quiet_thread.hpp"

namespace cairn::detail {

EarlyWriteBack::EarlyWriteBack(const std::filesystem::path& file) : file_(File::open_write(file)) {
  try {
    thread_ = quiet_thread([this] { serve(); });
  } catch (const std::system_error& error) {
    fail(Errc::io, "cannot start a thread that writes '{}': {}", file.string(), error.what());
  }
}

EarlyWriteBack::~EarlyWriteBack() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void EarlyWriteBack::more() {
  {
    const std::lock_guard lock(mutex_);
    more_ = true;
  }
  changed_.notify_one();
}

void EarlyWriteBack::serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return more_ || ends_; });
    if (ends_) return;
    more_ = false;
    lock.unlock();
    file_.begin_write_back(0, 0);
    lock.lock();
  }
}

}  // namespace cairn::detail
