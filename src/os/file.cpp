#include "os/file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <system_error>
#include <utility>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "os/fault.hpp"

namespace cairn::detail {
namespace {

// Linux moves at most 0x7ffff000 bytes a call; 1 GiB stays below on every system.
constexpr std::size_t kSliceBytes = std::size_t{1} << 30;

std::string_view advice(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return "; check the path";
    case ENOSPC:
      return "; free space on that file system or save elsewhere";
    case EDQUOT:
      return "; the quota is used up";
    case EACCES:
    case EPERM:
      return "; check owner and permissions";
    case EROFS:
      return "; the file system is read-only";
    case EFBIG:
      return "; see 'ulimit -f' and the file system's limit";
    case EMFILE:
      return "; see 'ulimit -n'";
    default:
      return "";
  }
}

/// Whether the file lies on a tmpfs.
bool lies_in_memory(int fd) {
  struct statfs system {};
  return ::fstatfs(fd, &system) == 0 && system.f_type == TMPFS_MAGIC;
}

/// One reservation of blocks; 0, or the system's error.
int allocate(int fd, std::uint64_t bytes) {
  const Fault fault = fault_point("reserve");
  if (fault == Fault::full) return ENOSPC;
  if (fault == Fault::refused) return EOPNOTSUPP;
  int result = 0;
  do {
    result = ::fallocate(fd, 0, 0, static_cast<off_t>(bytes));
  } while (result != 0 && errno == EINTR);
  return result == 0 ? 0 : errno;
}

/// What the file occupies already; 0 where that can't be told.
std::uint64_t bytes_on_disk(int fd) {
  constexpr std::uint64_t kUnit = 512;  // of st_blocks, whatever the block size is
  struct stat status {};
  return ::fstat(fd, &status) != 0 ? 0 : static_cast<std::uint64_t>(status.st_blocks) * kUnit;
}

/// One pwrite, with what fault injection makes of it.
ssize_t write_once(int fd, const std::byte* data, std::size_t count, off_t offset, Fault fault) {
  switch (fault) {
    case Fault::full:
      errno = ENOSPC;
      return -1;
    case Fault::refused:
      errno = EINVAL;
      return -1;
    case Fault::short_write:
      return ::pwrite(fd, data, std::max<std::size_t>(count / 2, 1), offset);
    case Fault::flip: {
      // Aligned, because the file may have been opened with O_DIRECT.
      constexpr std::size_t kBlock = 4096;
      const std::unique_ptr<std::byte, decltype(&std::free)> wrong(
          static_cast<std::byte*>(std::aligned_alloc(kBlock, (count / kBlock + 1) * kBlock)),
          &std::free);
      std::memcpy(wrong.get(), data, count);
      *wrong ^= std::byte{1};
      return ::pwrite(fd, wrong.get(), count, offset);
    }
    case Fault::twice:  // writes that are repeated change nothing
    case Fault::none:
      break;
  }
  return ::pwrite(fd, data, count, offset);
}

}  // namespace

void fail_system(std::string_view verb, const std::filesystem::path& path, int error) {
  const Errc code = error == ENOENT || error == ENOTDIR        ? Errc::not_found
                    : error == EISDIR || error == ENAMETOOLONG ? Errc::usage
                                                               : Errc::io;
  fail(code, "cannot {} '{}': {}{}", verb, path.string(), std::generic_category().message(error),
       advice(error));
}

File::File(int fd, std::filesystem::path path) : fd_(fd), path_(std::move(path)) {}

File File::open(const std::filesystem::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  if (fd < 0) fail_system((flags & O_CREAT) != 0 ? "create" : "open", path, errno);
  File file(fd, path);
  struct stat status {};
  if (::fstat(fd, &status) != 0) fail_system("examine", path, errno);
  if (S_ISDIR(status.st_mode)) fail_system("read", path, EISDIR);
  if (!S_ISREG(status.st_mode)) fail(Errc::usage, "'{}' is not a regular file", path.string());
  return file;
}

// O_NONBLOCK: opening a named pipe must not wait for a writer; regular files ignore it.
File File::open_read(const std::filesystem::path& path) {
  return open(path, O_RDONLY | O_NONBLOCK);
}
File File::open_write(const std::filesystem::path& path) { return open(path, O_RDWR); }
File File::create(const std::filesystem::path& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) fail_system("replace", path, errno);
  return open(path, O_RDWR | O_CREAT | O_EXCL);
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

File::File(File&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  return *this;
}

std::uint64_t File::size() const {
  struct stat status {};
  if (::fstat(fd_, &status) != 0) fail_system("examine", path_, errno);
  return static_cast<std::uint64_t>(status.st_size);
}

std::uint64_t File::fingerprint() const {
  constexpr std::uint64_t kEdgeBytes = 4096;
  const std::uint64_t end = size();
  std::vector<std::byte> edges(2 * std::min(kEdgeBytes, end));
  const auto [head, tail] =
      std::pair(std::span(edges).first(edges.size() / 2), std::span(edges).last(edges.size() / 2));
  read_at(0, head);
  read_at(end - tail.size(), tail);
  return digest_of(edges);
}

void File::read_at(std::uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const std::size_t count = std::min(out.size(), kSliceBytes);
    const ssize_t done = ::pread(fd_, out.data(), count, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail_system("read", path_, errno);
    if (done == 0) {
      fail(Errc::corrupt, "'{}' ends at byte {}, {} bytes too early: it is truncated",
           path_.string(), offset, out.size());
    }
    offset += static_cast<std::uint64_t>(done);
    out = out.subspan(static_cast<std::size_t>(done));
  }
}

void File::read_scattered(std::uint64_t offset, std::span<const std::span<std::byte>> out) const {
  std::vector<iovec> vectors;
  vectors.reserve(std::min<std::size_t>(out.size(), IOV_MAX));
  while (!out.empty()) {
    const auto batch = out.first(std::min<std::size_t>(out.size(), IOV_MAX));
    vectors.clear();
    for (const auto& piece : batch) vectors.push_back({piece.data(), piece.size()});
    ssize_t done =
        ::preadv(fd_, vectors.data(), static_cast<int>(vectors.size()), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) done = 0;
    if (done < 0) fail_system("read", path_, errno);
    // What a short read left (the end of the file, too) is read piece by piece.
    auto left = static_cast<std::uint64_t>(done);
    for (const auto& piece : batch) {
      const std::uint64_t got = std::min<std::uint64_t>(left, piece.size());
      left -= got;
      if (got != piece.size()) read_at(offset + got, piece.subspan(got));
      offset += piece.size();
    }
    out = out.subspan(batch.size());
  }
}

void File::begin_read(std::uint64_t offset, std::uint64_t bytes) const noexcept {
  static_cast<void>(::posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes),
                                    POSIX_FADV_WILLNEED));
}

/// Returns 0, or the system's error. `fault`: what becomes of the first request.
int File::write_all(std::uint64_t offset, std::span<const std::byte> bytes, Fault fault) const {
  while (!bytes.empty()) {
    const std::size_t count = std::min(bytes.size(), kSliceBytes);
    const ssize_t done = write_once(fd_, bytes.data(), count, static_cast<off_t>(offset), fault);
    fault = Fault::none;
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return errno;
    if (done == 0) return ENOSPC;
    offset += static_cast<std::uint64_t>(done);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
  return 0;
}

void File::write_at(std::uint64_t offset, std::span<const std::byte> bytes,
                    std::string_view point) const {
  if (bytes.empty()) return;
  const Fault fault = fault_point(point);
  if (const int error = write_all(offset, bytes, fault)) fail_system("write", path_, error);
}

void File::write_gathered(std::uint64_t offset, std::span<const std::span<const std::byte>> pieces,
                          std::string_view point) const {
  std::vector<iovec> vectors;
  vectors.reserve(std::min<std::size_t>(pieces.size(), IOV_MAX));
  while (!pieces.empty()) {
    const auto batch = pieces.first(std::min<std::size_t>(pieces.size(), IOV_MAX));
    pieces = pieces.subspan(batch.size());
    Fault fault = fault_point(point);
    ssize_t done = 0;
    if (batch.size() > 1 && fault == Fault::none) {
      vectors.clear();
      for (const auto& piece : batch) {
        vectors.push_back({const_cast<std::byte*>(piece.data()), piece.size()});
      }
      done = ::pwritev(fd_, vectors.data(), static_cast<int>(vectors.size()),
                       static_cast<off_t>(offset));
      if (done < 0 && errno == EINTR) done = 0;
      if (done < 0) fail_system("write", path_, errno);
    }
    // What a short write left, on a full disk, too, is written piece by piece.
    auto left = static_cast<std::uint64_t>(done);
    for (const auto& piece : batch) {
      const std::uint64_t got = std::min<std::uint64_t>(left, piece.size());
      left -= got;
      const int error = write_all(offset + got, piece.subspan(got), fault);
      if (error != 0) fail_system("write", path_, error);
      fault = Fault::none;
      offset += piece.size();
    }
  }
}

bool File::try_write_at(std::uint64_t offset, std::span<const std::byte> bytes,
                        std::string_view point) const {
  if (bytes.empty()) return true;
  const int error = write_all(offset, bytes, fault_point(point));
  if (error != 0 && error != EINVAL) fail_system("write", path_, error);
  return error == 0;
}

std::optional<File> File::reopen_past_cache() const {
  if (lies_in_memory(fd_)) return std::nullopt;
  // Not by its path, which may lead to another file by now.
  const std::string self = fmt::format("/proc/self/fd/{}", fd_);
  const int fd = ::open(self.c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  return File(fd, path_);
}

void File::reserve(std::uint64_t bytes) const {
  if (::ftruncate(fd_, static_cast<off_t>(bytes)) != 0) fail_system("size", path_, errno);
  if (bytes == 0) return;
  // A tmpfs would make all pages now, and the caller alone: a third of the time of a save.
  if (!lies_in_memory(fd_)) {
    const int error = allocate(fd_, bytes);
    if (error == 0) return;
    if (error != EOPNOTSUPP && error != ENOSYS) fail_system("reserve space for", path_, error);
  }
  const std::uint64_t there = bytes_on_disk(fd_);
  struct statvfs space {};
  if (::fstatvfs(fd_, &space) != 0) fail_system("examine", path_, errno);
  const std::uint64_t free_bytes = std::uint64_t{space.f_bavail} * space.f_frsize;
  if (free_bytes + there < bytes) {
    fail(Errc::io, "cannot reserve {} bytes for '{}': {}, {} are free{}", bytes - there,
         path_.string(), std::generic_category().message(ENOSPC), free_bytes, advice(ENOSPC));
  }
}

void File::begin_write_back(std::uint64_t offset, std::uint64_t bytes) const noexcept {
  // Whatever it says, sync() finds out what came of the bytes.
  static_cast<void>(::sync_file_range(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes),
                                      SYNC_FILE_RANGE_WRITE));
}

void File::sync() const {
  if (::fsync(fd_) != 0) fail_system("make durable", path_, errno);
}

void File::close() {
  const int fd = std::exchange(fd_, -1);
  if (fd >= 0 && ::close(fd) != 0) fail_system("close", path_, errno);
}

void make_directories(const std::filesystem::path& dir) {
  if (dir.empty()) return;
  std::error_code error;
  std::vector<std::filesystem::path> missing;
  for (auto at = dir; !at.empty() && !std::filesystem::exists(at, error); at = at.parent_path()) {
    missing.push_back(at);
  }
  std::filesystem::create_directories(dir, error);
  if (error) fail_system("make directory", dir, error.value());
  if (!std::filesystem::is_directory(dir, error)) fail_system("make directory", dir, EEXIST);
  for (const auto& made : missing) sync_directory(made.parent_path());
}

void sync_directory(const std::filesystem::path& dir) {
  const std::filesystem::path where = dir.empty() ? "." : dir;
  const int fd = ::open(where.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail_system("open", where, errno);
  const int result = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  // Some network file systems do not sync directories; there the server orders renames itself.
  if (result != 0 && error != EINVAL && error != ENOTSUP) fail_system("make durable", where, error);
}

void replace_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail_system("rename to", to, errno);
}

void replace_link(const std::string& target, const std::filesystem::path& link,
                  const std::filesystem::path& partial) {
  remove_quietly(partial);
  if (::symlink(target.c_str(), partial.c_str()) != 0) fail_system("link", partial, errno);
  replace_file(partial, link);
}

void remove_file(const std::filesystem::path& path) {
  if (fault_point("remove") == Fault::full) fail_system("remove", path, ENOSPC);
  if (::unlink(path.c_str()) != 0) fail_system("remove", path, errno);
}

void remove_quietly(const std::filesystem::path& path) noexcept {
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
}

std::vector<std::filesystem::directory_entry> entries_of(const std::filesystem::path& dir) {
  std::vector<std::filesystem::directory_entry> entries;
  std::error_code error;
  // A loop over the iterator itself would throw the library's own exception.
  for (std::filesystem::directory_iterator at(dir, error), end; !error && at != end;
       at.increment(error)) {
    entries.push_back(*at);
  }
  if (error) fail_system("list", dir, error.value());
  return entries;
}

bool is_own_file(const std::filesystem::directory_entry& entry) {
  std::error_code error;
  const auto type = entry.symlink_status(error).type();
  if (type == std::filesystem::file_type::not_found) return false;
  if (error) fail_system("examine", entry.path(), error.value());
  return type == std::filesystem::file_type::regular;
}

}  // namespace cairn::detail
