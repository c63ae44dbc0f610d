#include "checkpoint/steps.hpp"
#include "manifest/names.hpp"
#include "os/fault.hpp"
#include "os/file.hpp"

namespace cairn::detail {

void preflight(const Comm& comm, const SaveRequest& request, const SaveLayout& layout, bool stamp) {
  agree(comm, "save: preflight", [&] {
    fault_point("preflight");
    if (!comm.is_root()) return;
    make_directories(request.target.parent_path());
    const File file = File::create(request.partial);
    file.reserve(layout.container.file_bytes());
    if (!stamp) return;
    for (const auto& [offset, bytes] : layout.metadata.pieces) {
      file.write_at(offset, bytes, "preflight.write");
    }
  });
}

void publish(const Comm& comm, const SaveRequest& request) {
  agree(comm, "save: publish", [&] {
    fault_point("publish");
    if (!comm.is_root()) return;
    const std::filesystem::path dir = request.target.parent_path();
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
    if (request.options.durable) sync_directory(dir);
  });
}

}  // namespace cairn::detail
