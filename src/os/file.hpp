#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::detail {

enum class Fault;

/// An open file. Every operation is Local and throws Error with the path and the system's reason:
/// not_found (ENOENT), usage (a directory), io (everything else), corrupt (reading past the end).
/// The destructor closes and ignores failure; close() reports it.
class File {
 public:
  static File open_read(const std::filesystem::path& path);
  static File open_write(const std::filesystem::path& path);
  /// Makes a new file; one of that name is unlinked first, so that whoever still writes to it can't
  /// write to this one.
  static File create(const std::filesystem::path& path);

  ~File();
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  std::uint64_t size() const;
  /// XXH3-64 over the first and the last 4096 bytes: tells apart files that share a path.
  /// Containers end with a digest that covers everything in them.
  std::uint64_t fingerprint() const;
  /// Reads exactly out.size() bytes; slices at 1 GiB, continues after short reads and EINTR.
  void read_at(std::uint64_t offset, std::span<std::byte> out) const;
  /// The same into several pieces of memory, one behind the other in the file: one request for many
  /// small tensors.
  void read_scattered(std::uint64_t offset, std::span<const std::span<std::byte>> out) const;
  /// Has the disk begin with what will be read there soon. A hint.
  void begin_read(std::uint64_t offset, std::uint64_t bytes) const noexcept;
  /// Writes exactly all bytes; the same loops. `point` names the write to fault injection.
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes,
                std::string_view point) const;
  /// The same of several pieces of memory, one behind the other in the file: one request for many
  /// small tensors.
  void write_gathered(std::uint64_t offset, std::span<const std::span<const std::byte>> pieces,
                      std::string_view point) const;
  /// The same file once more, for writes of whole blocks that go past the page cache (O_DIRECT).
  /// Nothing where the file system does not do that, or keeps its files in memory.
  std::optional<File> reopen_past_cache() const;
  /// write_at() into a file of reopen_past_cache(). False where the file system does not take such
  /// a request after all (EINVAL): what it wrote of it until then is to be written again.
  bool try_write_at(std::uint64_t offset, std::span<const std::byte> bytes,
                    std::string_view point) const;
  /// Has the disk begin with what was written there, so that sync() finds less to do; 0
  /// bytes: all up to its end. Waits while the disk's queue is full. A hint.
  void begin_write_back(std::uint64_t offset, std::uint64_t bytes) const noexcept;
  /// Sets the size and reserves the blocks, so that later writes can't meet a full disk. File
  /// systems that cannot reserve, and a tmpfs, get a check of the free space instead.
  void reserve(std::uint64_t bytes) const;
  void sync() const;
  /// Some file systems report a failed write only here.
  void close();

  const std::filesystem::path& path() const { return path_; }

 private:
  File(int fd, std::filesystem::path path);
  static File open(const std::filesystem::path& path, int flags);
  int write_all(std::uint64_t offset, std::span<const std::byte> bytes, Fault fault) const;

  int fd_ = -1;
  std::filesystem::path path_;
};

/// Throws Error for errno: "cannot <verb> '<path>': <reason>; <advice>".
[[noreturn]] void fail_system(std::string_view verb, const std::filesystem::path& path, int error);

/// Makes the directory and its parents, and makes their names durable. Errors: io.
void make_directories(const std::filesystem::path& dir);
/// Makes renames and new names in `dir` durable. Errors: io.
void sync_directory(const std::filesystem::path& dir);
/// Moves `from` to `to`, replacing it atomically. The only rename in cairn. Errors: io.
void replace_file(const std::filesystem::path& from, const std::filesystem::path& to);
/// Points the symbolic link `link` at `target`, atomically: made as `partial`, then moved. Errors:
/// io.
void replace_link(const std::string& target, const std::filesystem::path& link,
                  const std::filesystem::path& partial);
/// Removes a file. Errors: not_found, io.
void remove_file(const std::filesystem::path& path);
/// Removes a file if it is there; failure is ignored (used to clean up behind another error).
void remove_quietly(const std::filesystem::path& path) noexcept;

/// What is in a directory, in any order. Local. Errors: not_found, io.
std::vector<std::filesystem::directory_entry> entries_of(const std::filesystem::path& dir);
/// Whether an entry of a directory is a file, and no link to one; false where it is gone. Local.
/// Errors: io, where that can't be told.
bool is_own_file(const std::filesystem::directory_entry& entry);

}  // namespace cairn::detail
