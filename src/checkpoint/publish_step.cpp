#include "checkpoint/references.hpp"
#include "checkpoint/steps.hpp"
#include "manifest/names.hpp"
#include "os/fault.hpp"
#include "os/file.hpp"

namespace cairn::detail {

void publish(const Comm& comm, const SaveRequest& request) {
  agree(comm, "save: publish", [&] {
    fault_point("publish");
    if (!comm.is_root()) return;
    const std::filesystem::path dir = request.target.parent_path();
    // Another job may have taken the directory over, and may need what is there now.
    check_replaceable(request.target, !request.in_background);
    fault_point("publish.rename");
    replace_file(request.partial, request.target);
    fault_point("publish.renamed");
    if (request.options.durable) sync_directory(dir);
    if (!names::parse_checkpoint_file(request.target.filename().string())) return;
    const std::filesystem::path link = dir / names::kLast;
    try {
      replace_link(request.target.filename().string(), link, names::partial_link(link));
    } catch (const Error&) {
      // The checkpoint is published; the link is a convenience that some file systems do not have.
      return;
    }
    fault_point("publish.linked");
    if (request.options.durable) sync_directory(dir);
  });
}

}  // namespace cairn::detail
