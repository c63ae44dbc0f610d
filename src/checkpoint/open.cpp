#include <algorithm>
#include <system_error>

#include "base/throw.hpp"
#include "cairn/checkpoint.hpp"
#include "formats/hdf5/container.hpp"
#include "manifest/codec.hpp"
#include "manifest/names.hpp"
#include "os/file.hpp"

namespace cairn {

using namespace detail;

Manifest open_checkpoint(const std::filesystem::path& path) {
  ContainerTable table = read_container(path);
  check_table(table);
  Manifest manifest = manifest_of(std::move(table));
  check_metadata(manifest);
  return manifest;
}

Manifest open_checkpoint(const Comm& comm, const std::filesystem::path& path) {
  ContainerTable table;
  std::vector<std::byte> head;
  agree(comm, "open", [&] {
    if (!comm.is_root()) return;
    table = read_container(path);
    head = encode(table.head);
  });
  comm.broadcast(head);
  comm.broadcast(table.index);
  Manifest manifest;
  agree(comm, "open", [&] {
    if (comm.is_root()) {
      check_table(table);
    } else {
      table.head = decode_manifest(head);
    }
    manifest = manifest_of(std::move(table));
    if (comm.is_root()) check_metadata(manifest);
  });
  return manifest;
}

std::filesystem::path checkpoint_path(const std::filesystem::path& run_dir, std::uint64_t step) {
  return run_dir / names::checkpoint_file(step);
}

std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& run_dir) {
  std::vector<std::uint64_t> steps;
  std::error_code error;
  std::filesystem::directory_iterator entries(run_dir, error);
  if (error == std::errc::no_such_file_or_directory) return std::nullopt;
  if (error) fail_system("list", run_dir, error.value());
  for (const auto& entry : entries) {
    if (auto step = names::parse_checkpoint_file(entry.path().filename().string())) {
      steps.push_back(*step);
    }
  }
  std::sort(steps.rbegin(), steps.rend());
  for (const std::uint64_t step : steps) {
    const auto path = checkpoint_path(run_dir, step);
    if (is_committed(path)) return path;
  }
  return std::nullopt;
}

}  // namespace cairn
