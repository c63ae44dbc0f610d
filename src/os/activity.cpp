#include "os/activity.hpp"

#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <string>

namespace cairn::detail {
namespace {

/// Bytes that a thread of this process moved by system calls; 0 where the kernel does not count.
std::uint64_t bytes_moved(long thread) {
  std::ifstream counters("/proc/self/task/" + std::to_string(thread) + "/io");
  std::uint64_t total = 0;
  std::string name;
  std::uint64_t count = 0;
  while (counters >> name >> count) {
    if (name == "rchar:" || name == "wchar:") total += count;
  }
  return total;
}

std::uint64_t last_write(const std::filesystem::path& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return 0;
  return static_cast<std::uint64_t>(status.st_mtim.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(status.st_mtim.tv_nsec);
}

}  // namespace

std::function<std::uint64_t()> activity_of(const std::filesystem::path& path) {
  const long thread = syscall(SYS_gettid);
  return [thread, path] { return bytes_moved(thread) + last_write(path); };
}

}  // namespace cairn::detail
