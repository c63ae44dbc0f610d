#include "checkpoint/marks.hpp"

#include <sys/stat.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/nonce.hpp"
#include "base/throw.hpp"
#include "manifest/names.hpp"
#include "os/file.hpp"
#include "os/host.hpp"
#include "os/small_file.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

void write(const fs::path& path, const Json& json) {
  write_small_file(path, names::partial_small(path, random_nonce()),
                   json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n", "mark.write");
}

std::int64_t modified(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) fail_system("examine", path, errno);
  return std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
}

void write_mark(const fs::path& path, const fs::path& checkpoint, const std::string& reason) {
  const File file = File::open_read(checkpoint);
  write(path, Json{{"reason", reason},
                   {"at", utc_now()},
                   {"host", host_name()},
                   {"bytes", file.size()},
                   {"fingerprint", file.fingerprint()},
                   {"modified", modified(checkpoint)}});
}

/// Nothing also where the text is none of ours.
std::optional<Mark> read_mark(const fs::path& path) {
  const auto text = read_small_file(path);
  if (!text) return std::nullopt;
  try {
    const Json json = Json::parse(*text);
    return Mark{json.at("reason"), json.at("at"),          json.at("host"),
                json.at("bytes"),  json.at("fingerprint"), json.at("modified")};
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

bool is_about(const Mark& mark, const fs::path& checkpoint) {
  const File file = File::open_read(checkpoint);
  return mark.bytes == file.size() && mark.fingerprint == file.fingerprint();
}

}  // namespace

void mark_bad(const fs::path& checkpoint, const std::string& reason) {
  write_mark(names::bad_mark(checkpoint), checkpoint, reason);
  remove_quietly(names::verified_mark(checkpoint));
}

void mark_verified(const fs::path& checkpoint) {
  write_mark(names::verified_mark(checkpoint), checkpoint, "all digests are right");
  remove_quietly(names::bad_mark(checkpoint));
}

std::optional<Mark> bad_mark_of(const fs::path& checkpoint) {
  auto mark = read_mark(names::bad_mark(checkpoint));
  if (!mark || !is_about(*mark, checkpoint) || mark->modified != modified(checkpoint)) {
    return std::nullopt;
  }
  return mark;
}

std::optional<Mark> verified_mark_of(const fs::path& checkpoint) {
  auto mark = read_mark(names::verified_mark(checkpoint));
  return mark && is_about(*mark, checkpoint) ? std::move(mark) : std::nullopt;
}

void pin(const fs::path& checkpoint) {
  if (is_pinned(checkpoint)) return;
  write(names::pin_file(checkpoint), Json{{"at", utc_now()}, {"host", host_name()}});
}

bool unpin(const fs::path& checkpoint) {
  if (!is_pinned(checkpoint)) return false;
  remove_file(names::pin_file(checkpoint));
  sync_directory(checkpoint.parent_path());
  return true;
}

bool is_pinned(const fs::path& checkpoint) {
  // What can't be examined is not taken for absent: a checkpoint would be removed for it.
  std::error_code error;
  const auto status = fs::symlink_status(names::pin_file(checkpoint), error);
  if (status.type() == fs::file_type::not_found) return false;
  if (error) fail_system("examine", names::pin_file(checkpoint), error.value());
  return true;
}

}  // namespace cairn::detail
