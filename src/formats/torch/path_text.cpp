#include "formats/torch/path_text.hpp"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "base/text.hpp"

namespace cairn::detail::torch {
namespace {

/// Adds the names in `path` to those of `names`, each with a separator behind it; "." is none.
void add_names(std::string& names, std::string_view path, char separator) {
  while (!path.empty()) {
    const std::string_view name = path.substr(0, path.find(separator));
    path.remove_prefix(std::min(path.size(), name.size() + 1));
    if (name.empty() || name == ".") continue;
    names += name;
    names += separator;
  }
}

std::string text_of(std::string start, std::string names) {
  if (!names.empty()) names.pop_back();  // the last separator
  start += names;
  return start.empty() ? "." : start;
}

bool same_but_for_case(std::string_view a, std::string_view b) {
  return lower_case(a) == lower_case(b);
}

/// A path of Windows in three: "C:" or "\\server\share", whether it starts at the top, the rest.
struct WindowsPath {
  std::string_view drive;
  bool rooted = false;
  std::string_view rest;

  explicit WindowsPath(std::string_view path) : rest(path) {
    std::size_t bytes = path.size() > 1 && path[1] == ':' ? 2 : 0;
    if (path.starts_with("\\\\")) {
      constexpr std::string_view kLong = "\\\\?\\UNC\\";  // in front of the server
      const bool is_long = same_but_for_case(path.substr(0, kLong.size()), kLong);
      const std::size_t server_end = path.find('\\', is_long ? kLong.size() : 2);
      const std::size_t share_end =
          server_end == path.npos ? path.npos : path.find('\\', server_end + 1);
      bytes = std::min(share_end, path.size());
    }
    drive = path.substr(0, bytes);
    rest.remove_prefix(bytes);
    rooted = rest.starts_with('\\');
    if (rooted) rest.remove_prefix(1);
  }
};

/// Whether a drive is a share, in which nothing lies but below its top: "\\server\share", not
/// "\\.\device".
bool is_share(std::string_view drive) {
  if (!drive.starts_with('\\') || drive.ends_with('\\')) return false;
  const auto separators = std::count(drive.begin(), drive.end(), '\\');
  const std::string_view server = drive.substr(2, drive.find('\\', 2) - 2);
  return separators == 5 || (separators == 3 && !server.empty() && server != "?" && server != ".");
}

std::string joined(const WindowsPath& path, const std::string& names) {
  std::string text(path.drive);
  const bool apart = !names.empty() && !text.empty() && text.back() != ':' && text.back() != '\\';
  if (path.rooted || apart) text += '\\';
  return text + names;
}

/// The second path seen from the first.
std::string joined(std::string_view from, std::string_view to) {
  WindowsPath first(from);
  const WindowsPath next(to);
  const bool elsewhere = !next.drive.empty() && !same_but_for_case(next.drive, first.drive);
  if (!next.drive.empty()) first.drive = next.drive;
  if (next.rooted || elsewhere) {
    first.rooted = next.rooted;
    return joined(first, std::string(next.rest));
  }
  std::string names(first.rest);
  if (!names.empty() && names.back() != '\\') names += '\\';
  return joined(first, names.append(next.rest));
}

}  // namespace

std::string posix_path(const std::vector<std::string_view>& parts) {
  std::string start;
  std::string names;
  for (const std::string_view part : parts) {
    if (part.starts_with('/')) {
      // Two slashes, and no more, may mean something else than one (POSIX, pathname resolution).
      start = part.starts_with("//") && !part.starts_with("///") ? "//" : "/";
      names.clear();
    }
    add_names(names, part, '/');
  }
  return text_of(std::move(start), std::move(names));
}

std::string windows_path(const std::vector<std::string_view>& parts) {
  std::string text;
  for (const std::string_view part : parts) {
    std::string next(part);
    std::replace(next.begin(), next.end(), '/', '\\');
    text = text.empty() ? std::move(next) : joined(text, next);
  }
  const WindowsPath path(text);
  std::string start(path.drive);
  if (path.rooted || is_share(path.drive)) start += '\\';
  std::string names;
  add_names(names, path.rest, '\\');
  // A name that looks like a drive.
  if (start.empty() && names.size() > 1 && names[1] == ':') start = ".\\";
  return text_of(std::move(start), std::move(names));
}

}  // namespace cairn::detail::torch
