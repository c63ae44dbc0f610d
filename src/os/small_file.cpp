#include "os/small_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <span>

#include "base/throw.hpp"
#include "os/file.hpp"

namespace cairn::detail {
namespace {

constexpr std::uint64_t kMostBytes = 64 << 10;

}  // namespace

std::optional<std::string> read_small_file(const std::filesystem::path& path) {
  try {
    const File file = File::open_read(path);
    if (file.size() > kMostBytes) {
      fail(Errc::corrupt, "'{}' has {} bytes; it is not what cairn wrote", path.string(),
           file.size());
    }
    std::string text(file.size(), '\0');
    file.read_at(0, std::as_writable_bytes(std::span(text)));
    return text;
  } catch (const Error& error) {
    if (error.code() == Errc::not_found) return std::nullopt;
    throw;
  }
}

void write_small_file(const std::filesystem::path& path, const std::filesystem::path& partial,
                      std::string_view text, std::string_view point) {
  try {
    File file = File::create(partial);
    file.write_at(0, std::as_bytes(std::span(text)), point);
    file.sync();
    file.close();
    replace_file(partial, path);
  } catch (...) {
    remove_quietly(partial);
    throw;
  }
  sync_directory(path.parent_path());
}

void touch_file(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) fail_system("create", path, errno);
  ::close(fd);
}

}  // namespace cairn::detail
