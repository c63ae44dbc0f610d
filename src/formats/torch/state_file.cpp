#include "formats/torch/state_file.hpp"

#include <utility>

#include "base/throw.hpp"
#include "formats/torch/archive.hpp"
#include "formats/torch/legacy.hpp"
#include "os/file.hpp"

namespace cairn::detail::torch {

using pickle::Kind;
using pickle::kNoRef;
using pickle::Ref;

StateFile::StateFile(const std::filesystem::path& path, Manifest& manifest, TableBytes& table_bytes,
                     std::string name)
    : name_(name.empty() ? path.filename().string() : std::move(name)),
      number_(static_cast<std::uint32_t>(manifest.files.size())) {
  const File file = File::open_read(path);
  table_bytes.add_file(file.size());
  manifest.files.push_back({path, file.size(), Access::extents, file.fingerprint()});
  try {
    if (is_legacy(file)) {
      LegacyFile old = read_legacy(file);
      graph_ = std::move(old.graph);
      storages_ = std::move(old.storages);
      return;
    }
    const Archive archive = Archive::open(file, 0, file.size());
    graph_ = archive.read_pickle(file);
    storages_ = storages_of(graph_);
    archive.place(storages_);
    for (Checksum checksum : archive.checksums()) {
      checksum.file = number_;
      manifest.checksums.push_back(checksum);
    }
    if (const std::string warning = archive.missing_checksums(); !warning.empty()) {
      manifest.warnings.push_back(fmt::format("'{}': {}", name_, warning));
    }
  } catch (const Error& error) {
    if (error.code() == Errc::io) throw;
    fail(error.code(), "'{}': {}", name_, error.what());
  }
}

void StateFile::corrupt(std::string_view why) const { fail(Errc::corrupt, "'{}': {}", name_, why); }

Ref StateFile::find(Ref dict, std::string_view key) const {
  if (dict == kNoRef || graph_.kind(dict) != Kind::dict) return kNoRef;
  return graph_.find(dict, key).value_or(kNoRef);
}

Ref StateFile::get(Ref dict, std::string_view key) const {
  const Ref found = find(dict, key);
  if (found == kNoRef) corrupt(fmt::format("it has no '{}'", key));
  return found;
}

StateFile::Found StateFile::tensor(Ref ref, std::string_view name) const {
  if (ref == kNoRef || !is_tensor(graph_, ref)) {
    corrupt(fmt::format("'{}' is no tensor", name));
  }
  Tensor tensor = tensor_of(graph_, ref, storages_);
  const std::uint64_t offset = storages_.all[tensor.storage].offset + tensor.first;
  return {std::move(tensor), offset};
}

std::int64_t StateFile::integer(Ref ref, std::string_view name) const {
  if (ref != kNoRef && graph_.kind(ref) == Kind::object) {
    // An enum, which is its number.
    const auto args = graph_.elements(graph_.object(ref).args);
    if (args.size() == 1) ref = args[0];
  }
  if (ref == kNoRef || graph_.kind(ref) != Kind::integer) {
    corrupt(fmt::format("'{}' is no number", name));
  }
  return graph_.integer(ref);
}

}  // namespace cairn::detail::torch
