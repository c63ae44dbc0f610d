#include "sources/local.hpp"

#include <string>
#include <system_error>

#include "base/throw.hpp"
#include "cairn/checkpoint.hpp"

namespace cairn::detail {
namespace {

std::filesystem::path find(const std::filesystem::path& path) {
  std::error_code ignored;  // opening the file tells better what is wrong
  const auto status = std::filesystem::status(path, ignored);
  if (std::filesystem::is_directory(status)) {
    const auto newest = newest_checkpoint(path);
    if (!newest) {
      fail(Errc::not_found,
           "run directory '{}' has no committed checkpoint; name a file to look at an incomplete "
           "one",
           path.string());
    }
    return *newest;
  }
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    fail(Errc::unsupported, "'{}' is neither a file nor a run directory", path.string());
  }
  return path;
}

}  // namespace

std::filesystem::path resolve_local(const Comm& comm, const std::filesystem::path& path) {
  std::string found;
  agree(comm, "resolve source", [&] {
    if (comm.is_root()) found = find(path).string();
  });
  comm.broadcast(found);
  return found;
}

}  // namespace cairn::detail
