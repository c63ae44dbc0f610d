#include "os/lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "os/file.hpp"

namespace cairn::detail {

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

bool FileLock::try_lock(const std::filesystem::path& path) {
  // For writing, because NFS makes a lock on a range of bytes of it.
  if (fd_ < 0) fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_system("open the lock", path, errno);
  int result = 0;
  do {
    result = ::flock(fd_, LOCK_EX | LOCK_NB);
  } while (result != 0 && errno == EINTR);
  held_ = result == 0;
  if (held_) return true;
  if (errno == EWOULDBLOCK) return false;
  if (errno == ENOLCK || errno == ENOSYS || errno == EOPNOTSUPP || errno == EINVAL) return true;
  fail_system("lock", path, errno);
}

}  // namespace cairn::detail
