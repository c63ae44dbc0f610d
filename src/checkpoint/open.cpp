#include <utility>

#include "base/throw.hpp"
#include "cairn/checkpoint.hpp"
#include "formats/hdf5/container.hpp"
#include "formats/read_manifest.hpp"
#include "manifest/codec.hpp"
#include "manifest/names.hpp"

namespace cairn {

using namespace detail;

Manifest open_checkpoint(const std::filesystem::path& path) { return read_manifest(path); }

Manifest open_checkpoint(const Comm& comm, const std::filesystem::path& path) {
  // A container's table travels as it lies in the file, anything else's as part of the manifest.
  Manifest manifest;
  ContainerTable table;
  std::vector<std::byte> head;
  agree(comm, "open", [&] {
    if (!comm.is_root()) return;
    const FoundFormat found = find_format(path);
    if (found.format == Format::cairn) {
      table = read_container(found.path);
      head = encode(table.head);
      manifest.format = table.head.format;
    } else {
      manifest = read_manifest(found);
      head = encode(manifest);
    }
  });
  comm.broadcast(head);
  comm.broadcast(table.index);
  agree(comm, "open", [&] {
    if (!comm.is_root()) manifest = decode_manifest(head);
    if (!manifest.is_container()) return;
    if (comm.is_root()) {
      check_table(table);
    } else {
      table.head = std::move(manifest);
    }
    manifest = manifest_of(std::move(table));
    // Two ranks share the checks, for which all others wait. The last one may do its before rank 0
    // has checked the table, whose digest is right: an index that contradicts itself is an error.
    if (comm.rank() == comm.size() - 1) check_metadata(manifest);
    if (comm.is_root()) check_files(manifest);
  });
  return manifest;
}

std::filesystem::path checkpoint_path(const std::filesystem::path& run_dir, std::uint64_t step) {
  return run_dir / names::checkpoint_file(step);
}

}  // namespace cairn
