#include "scan.hpp"

#include <fmt/format.h>

#include "checkpoint/verify.hpp"
#include "output.hpp"

namespace cairn::tool {

void require_undamaged(const Comm& comm, const Manifest& manifest) {
  require_undamaged(comm, manifest, std::vector<std::uint64_t>(manifest.tensors.size(), 1));
}

void require_undamaged(const Comm& comm, const Manifest& manifest,
                       const std::vector<std::uint64_t>& wanted) {
  const VerifyReport report = detail::verify_wanted(comm, manifest, wanted);
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
