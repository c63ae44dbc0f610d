#include "checkpoint/marks.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

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

/// A small file holds no more.
constexpr std::size_t kMostListedBytes = 32 << 10;

std::optional<std::vector<std::string>> listed(std::vector<std::string> tensors) {
  std::sort(tensors.begin(), tensors.end());
  tensors.erase(std::unique(tensors.begin(), tensors.end()), tensors.end());
  std::size_t bytes = 0;
  for (const std::string& name : tensors) bytes += name.size() + 4;
  if (bytes > kMostListedBytes) return std::nullopt;
  return tensors;
}

Json to_json(const std::optional<std::vector<std::string>>& tensors) {
  return tensors ? Json(*tensors) : Json("any");
}

std::optional<std::vector<std::string>> tensors_of(const Json& mark) {
  const auto tensors = mark.find("tensors");
  if (tensors == mark.end()) return std::vector<std::string>{};
  if (!tensors->is_array()) return std::nullopt;
  return tensors->get<std::vector<std::string>>();
}

void write_mark(const fs::path& path, const fs::path& checkpoint, const std::string& reason,
                const std::optional<std::vector<std::string>>& tensors) {
  const File file = File::open_read(checkpoint);
  write(path, Json{{"reason", reason},
                   {"at", utc_now()},
                   {"host", host_name()},
                   {"bytes", file.size()},
                   {"fingerprint", file.fingerprint()},
                   {"modified", modified(checkpoint)},
                   {"tensors", to_json(tensors)}});
}

/// Nothing also where the text is none of ours.
std::optional<Mark> read_mark(const fs::path& path) {
  const auto text = read_small_file(path);
  if (!text) return std::nullopt;
  try {
    const Json json = Json::parse(*text);
    return Mark{json.at("reason"),      json.at("at"),       json.at("host"), json.at("bytes"),
                json.at("fingerprint"), json.at("modified"), tensors_of(json)};
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

bool is_about(const Mark& mark, const fs::path& checkpoint) {
  const File file = File::open_read(checkpoint);
  return mark.bytes == file.size() && mark.fingerprint == file.fingerprint();
}

}  // namespace

void mark_bad(const fs::path& checkpoint, const std::string& reason,
              std::vector<std::string> tensors) {
  std::optional<std::vector<std::string>> damaged;
  const auto before = bad_mark_of(checkpoint);
  if (!before || before->tensors) {
    if (before) tensors.insert(tensors.end(), before->tensors->begin(), before->tensors->end());
    damaged = listed(std::move(tensors));
  }
  write_mark(names::bad_mark(checkpoint), checkpoint, reason, damaged);
  remove_quietly(names::verified_mark(checkpoint));
}

void mark_verified(const fs::path& checkpoint) {
  write_mark(names::verified_mark(checkpoint), checkpoint, "all digests are right",
             std::vector<std::string>{});
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
