#include "formats/read_manifest.hpp"

#include <utility>

#include "formats/dcp/reader.hpp"
#include "formats/deepspeed/reader.hpp"
#include "formats/hdf5/container.hpp"
#include "formats/megatron/reader.hpp"
#include "formats/reading.hpp"
#include "formats/safetensors/reader.hpp"
#include "formats/sharded.hpp"
#include "formats/table_bytes.hpp"
#include "formats/torch/reader.hpp"

namespace cairn::detail {
namespace {

Manifest read_whole_container(const std::filesystem::path& path) {
  ContainerTable table = read_container(path);
  check_table(table);
  Manifest manifest = manifest_of(std::move(table));
  check_metadata(manifest);
  check_files(manifest);
  return manifest;
}

/// A file of a format whose readers leave it to their caller to name the checkpoint. `table_bytes`
/// counts all files of the checkpoint.
Manifest read_foreign(const FoundFormat& found, TableBytes& table_bytes) {
  switch (found.format) {
    case Format::safetensors:
      return read_safetensors(found.path, table_bytes);
    case Format::dcp:
      return read_dcp(found.path, table_bytes);
    case Format::deepspeed:
      return read_deepspeed(found.path, table_bytes);
    case Format::megatron:
      return read_megatron(found.path, table_bytes);
    case Format::index:
      return read_sharded(found.path, table_bytes, [&](const std::filesystem::path& shard) {
        const FoundFormat file = find_format(shard);
        if (file.format == Format::index || file.format == Format::cairn) {
          fail(Errc::corrupt, "it is no shard");
        }
        return read_foreign(file, table_bytes);
      });
    case Format::torch:
    case Format::pickle:
      return read_torch(found.path, table_bytes);
    case Format::cairn:
      break;
  }
  fail(Errc::internal, "no reader for this format");
}

}  // namespace

Manifest read_manifest(const FoundFormat& found) {
  if (found.format == Format::cairn) return read_whole_container(found.path);
  return reading(found.path, "", [&] {
    TableBytes table_bytes;
    return read_foreign(found, table_bytes);
  });
}

Manifest read_manifest(const std::filesystem::path& path) {
  return read_manifest(find_format(path));
}

}  // namespace cairn::detail
