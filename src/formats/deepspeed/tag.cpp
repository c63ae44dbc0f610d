#include "formats/deepspeed/tag.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include "base/throw.hpp"
#include "os/file.hpp"

namespace cairn::detail::deepspeed {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMostTagBytes = 256;
constexpr std::array<std::string_view, 2> kPointers{"latest", "latest_universal"};

/// What a pointer says; nothing where it is no file with one short line.
std::optional<std::string> tag_in(const File& file) {
  if (file.size() == 0 || file.size() > kMostTagBytes) return std::nullopt;
  std::string tag(file.size(), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(tag)));
  while (!tag.empty() && (tag.back() == '\n' || tag.back() == '\r')) tag.pop_back();
  const bool line =
      std::none_of(tag.begin(), tag.end(), [](unsigned char c) { return std::iscntrl(c) != 0; });
  return line && !tag.empty() ? std::optional(tag) : std::nullopt;
}

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

}  // namespace

bool names_tag(const fs::path& directory) {
  return std::any_of(kPointers.begin(), kPointers.end(), [&](std::string_view name) {
    return is_file(directory / name) && tag_in(File::open_read(directory / name)).has_value();
  });
}

fs::path tagged(const fs::path& directory, Manifest& manifest) {
  for (const std::string_view name : kPointers) {
    if (!is_file(directory / name)) continue;
    const File file = File::open_read(directory / name);
    const auto tag = tag_in(file);
    if (!tag) fail(Errc::corrupt, "its '{}' names no tag", name);
    if (*tag == "." || *tag == ".." || tag->find('/') != std::string::npos) {
      fail(Errc::unsafe, "its '{}' names '{}', which leaves the directory", name, *tag);
    }
    manifest.files.push_back({directory / name, file.size(), Access::extents, file.fingerprint()});
    std::error_code ignored;
    if (!fs::is_directory(directory / *tag, ignored)) {
      fail(Errc::corrupt,
           "its '{}' names '{}', as DeepSpeed's does, but there is no such directory beside it",
           name, *tag);
    }
    return directory / *tag;
  }
  return directory;
}

}  // namespace cairn::detail::deepspeed
