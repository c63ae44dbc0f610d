#include "scan.hpp"

#include <fmt/format.h>

#include "output.hpp"

namespace cairn::tool {

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
