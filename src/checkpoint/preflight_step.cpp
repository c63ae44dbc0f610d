#include "checkpoint/steps.hpp"
#include "os/file.hpp"

namespace cairn::detail {

void make_partial_file(const SaveRequest& request, const SaveLayout& layout, std::uint64_t nonce,
                       bool stamp) {
  make_directories(request.target.parent_path());
  File file = File::create(request.partial);
  file.reserve(layout.container.bytes_to_reserve());
  file.write_at(layout.container.hdf5_bytes, std::as_bytes(std::span(&nonce, 1)),
                "preflight.write");
  if (stamp) {
    for (const auto& [offset, bytes] : layout.metadata.pieces) {
      file.write_at(offset, bytes, "preflight.write");
    }
  }
  file.close();
}

}  // namespace cairn::detail
