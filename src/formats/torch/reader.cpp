#include "formats/torch/reader.hpp"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "base/throw.hpp"
#include "formats/pickle/parse.hpp"
#include "formats/torch/anemoi.hpp"
#include "formats/torch/archive.hpp"
#include "formats/torch/facts.hpp"
#include "formats/torch/legacy.hpp"
#include "formats/torch/values.hpp"
#include "formats/torch/walk.hpp"
#include "os/file.hpp"

namespace cairn::detail {
namespace {

using torch::Json;

/// The names of classes and functions in the pickle.
std::string globals_of(const pickle::Graph& graph) {
  std::vector<std::string> names;
  for (const pickle::Global& global : graph.globals()) {
    names.push_back(global.module + "." + global.name);
  }
  std::sort(names.begin(), names.end());
  return Json(names).dump();
}

void add_contents(const pickle::Graph& graph, const torch::Storages& storages, Manifest& manifest,
                  TableBytes& table_bytes) {
  torch::WalkBudget budget;
  torch::Contents contents = torch::walk(graph, storages, table_bytes, budget);
  manifest.tensors = TensorTable(std::move(contents.tensors));
  manifest.documents["objects"] = std::move(contents.objects);
  manifest.documents["opaque"] = std::move(contents.opaque);
  manifest.documents["arrays"] = std::move(contents.arrays);
  if (contents.containers != "[]") {
    manifest.documents["containers"] = std::move(contents.containers);
  }
  manifest.documents["aliases"] = Json(contents.aliases).dump();
  manifest.documents["globals"] = globals_of(graph);
  manifest.documents.merge(torch::facts_of(graph, manifest.tensors));
  manifest.warnings.insert(manifest.warnings.end(), contents.warnings.begin(),
                           contents.warnings.end());
}

void read_zip_file(const File& file, Manifest& manifest, TableBytes& table_bytes) {
  torch::Archive archive = torch::Archive::open(file, 0, file.size());
  const pickle::Graph graph = archive.read_pickle(file);
  torch::Storages storages = torch::storages_of(graph);
  archive.place(storages);
  add_contents(graph, storages, manifest, table_bytes);
  manifest.documents["archive"] = archive.describe();
  manifest.checksums = archive.checksums();
  if (std::string warning = archive.missing_checksums(); !warning.empty()) {
    manifest.warnings.push_back(std::move(warning));
  }
  std::string anemoi = torch::anemoi_metadata_of(file, archive, manifest.warnings);
  if (!anemoi.empty()) manifest.documents["anemoi"] = std::move(anemoi);
}

void read_old_file(const File& file, Manifest& manifest, TableBytes& table_bytes) {
  const torch::LegacyFile old = torch::read_legacy(file);
  add_contents(old.graph, old.storages, manifest, table_bytes);
  manifest.documents["archive"] = Json{{"container", "legacy"}}.dump();
}

bool starts_with(const File& file, std::uint64_t position, std::string_view text) {
  if (file.size() < position + text.size()) return false;
  std::string found(text.size(), '\0');
  file.read_at(position, std::as_writable_bytes(std::span(found)));
  return found == text;
}

}  // namespace

Manifest read_torch(const std::filesystem::path& path, TableBytes& table_bytes) {
  const File file = File::open_read(path);
  table_bytes.add_file(file.size());
  Manifest manifest;
  manifest.format = "torch";
  manifest.files.push_back({path, file.size(), Access::extents, file.fingerprint()});
  if (torch::is_legacy(file)) {
    read_old_file(file, manifest, table_bytes);
  } else if (starts_with(file, 257, "ustar")) {
    fail(Errc::unsupported,
         "it is a tar file, as PyTorch wrote before 0.2; load it with a PyTorch before 2.0 and "
         "save it again");
  } else if (starts_with(file, 0, "\x80")) {
    fail(Errc::unsupported,
         "it is a pickle that torch.save did not write; load it with Python and save its tensors "
         "with torch.save");
  } else {
    read_zip_file(file, manifest, table_bytes);
  }
  return manifest;
}

}  // namespace cairn::detail
