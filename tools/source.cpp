#include "source.hpp"

#include <filesystem>
#include <system_error>

#include "base/throw.hpp"
#include "output.hpp"

namespace cairn::tool {

using detail::fail;

std::string resolve(const Comm& comm, const std::string& path) {
  namespace fs = std::filesystem;
  std::string found = path;
  agree(comm, "open", [&] {
    if (!comm.is_root()) return;
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (fs::is_directory(status)) {
      const auto newest = newest_checkpoint(path);
      if (!newest) {
        fail(Errc::not_found,
             "run directory '{}' has no committed checkpoint; name a file to look at an incomplete "
             "one",
             path);
      }
      found = newest->string();
    } else if (fs::exists(status) && !fs::is_regular_file(status)) {
      // Opening a pipe would wait for its other end.
      fail(Errc::unsupported, "'{}' is neither a file nor a run directory", path);
    }
  });
  comm.broadcast(found);
  return found;
}

void require_undamaged(const Comm& comm, const Manifest& manifest) {
  const VerifyReport report = verify_tensors(comm, manifest);
  if (report.defects.empty()) return;
  const std::size_t more = report.defects.size() - 1;
  throw Error(Errc::corrupt,
              fmt::format("{}{}; see 'cairn verify {}' and use an older checkpoint",
                          report.defects.front().text,
                          more == 0 ? "" : fmt::format(" (and {})", counted(more, "more defect")),
                          manifest.path().string()),
              /*rank=*/0);
}

}  // namespace cairn::tool
