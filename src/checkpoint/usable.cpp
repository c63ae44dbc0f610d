#include "checkpoint/usable.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "base/throw.hpp"
#include "formats/hdf5/container.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;

/// The first of the damaged tensors that a checkpoint takes from `file`.
std::optional<std::string> damaged_tensor(const Manifest& manifest, const std::string& file,
                                          const Mark& mark) {
  for (const TensorEntry& tensor : manifest.tensors) {
    const bool lies_there =
        std::any_of(tensor.extents.begin(), tensor.extents.end(), [&](const Extent& extent) {
          return manifest.files.at(extent.file).path.filename() == file;
        });
    if (!lies_there) continue;
    const auto& damaged = mark.tensors;
    if (!damaged || std::find(damaged->begin(), damaged->end(), tensor.name) != damaged->end()) {
      return tensor.name;
    }
  }
  return std::nullopt;
}

std::optional<Mark> mark_of_needed(const fs::path& checkpoint, bool may_call_hdf5) {
  std::optional<Manifest> manifest;  // read once a file it needs is marked
  for (const std::string& name : referenced_files(checkpoint, may_call_hdf5)) {
    const fs::path file = checkpoint.parent_path() / name;
    std::error_code error;
    auto mark = fs::exists(file, error) ? bad_mark_of(file) : std::nullopt;
    if (!mark) continue;
    if (!manifest) {
      ContainerTable table = read_container(checkpoint);
      check_table(table);
      manifest = manifest_of(std::move(table));
    }
    const auto tensor = damaged_tensor(*manifest, name, *mark);
    if (!tensor) continue;
    mark->reason = fmt::format("it takes the tensor '{}' from '{}', which is damaged: {}", *tensor,
                               name, mark->reason);
    return mark;
  }
  return std::nullopt;
}

}  // namespace

std::optional<Mark> unusable_mark_of(const fs::path& checkpoint, bool may_call_hdf5) {
  if (auto mark = bad_mark_of(checkpoint)) return mark;
  try {
    return mark_of_needed(checkpoint, may_call_hdf5);
  } catch (const Error& error) {
    if (error.code() == Errc::io) throw;
    return std::nullopt;  // what is the matter with it opening it tells
  }
}

std::vector<fs::path> mark_damage(const fs::path& checkpoint, std::span<const Defect> defects) {
  struct Damage {
    std::string reason;  // the first
    std::vector<std::string> tensors;
  };
  std::map<fs::path, Damage> by_file;
  for (const Defect& defect : defects) {
    Damage& damage = by_file[defect.file.empty() ? checkpoint : fs::canonical(defect.file)];
    if (damage.reason.empty()) damage.reason = defect.text;
    if (!defect.tensor.empty()) damage.tensors.push_back(defect.tensor);
  }
  std::vector<fs::path> marked;
  for (auto& [file, damage] : by_file) {
    mark_bad(file, damage.reason, std::move(damage.tensors));
    marked.push_back(file);
  }
  // A file that changed meanwhile has no mark any more; and of a checkpoint that another program
  // rewrote only HDF5 knows what it needs, which who passes over it does not ask.
  if (!unusable_mark_of(checkpoint, /*may_call_hdf5=*/false)) {
    mark_bad(checkpoint, defects.front().text);
    marked.push_back(checkpoint);
  }
  return marked;
}

}  // namespace cairn::detail
