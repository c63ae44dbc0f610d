#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "checkpoint/convert_tree.hpp"
#include "formats/torch/values.hpp"
#include "formats/torch/writer.hpp"

namespace cairn::detail {
namespace {

using Json = nlohmann::ordered_json;
using Path = std::vector<PathKey>;

/// PyTorch counts the steps of each parameter, in a tensor of its own; others once for a group.
void add_step(torch::NewFile& file, Path state, const Json& group) {
  const Json step = group.value("step", Json());
  if (!step.is_number_integer() || !file.tree.contains(state)) return;
  state.emplace_back(std::string("step"));
  if (file.tree.contains(state)) return;
  const auto count = step.get<float>();
  std::string bytes(sizeof(count), '\0');
  std::memcpy(bytes.data(), &count, sizeof(count));
  file.tree.add_array(state, file.arrays.size());
  file.arrays.push_back({DType::f32, {}, std::move(bytes)});
}

}  // namespace

bool starts_with(const Path& path, const Path& start) {
  return path.size() >= start.size() && std::equal(start.begin(), start.end(), path.begin());
}

std::vector<Path> optimizers_without_state(const Json& optimizers,
                                           const std::vector<std::pair<Path, bool>>& tensors) {
  std::vector<Path> without;
  std::set<Path> lists;  // of which one stays
  for (const Json& optimizer : optimizers) {
    const Path path = torch::path_of(optimizer.at("path"));
    Path state = path;
    state.emplace_back(std::string("state"));
    bool had = false;
    bool stays = false;
    for (const auto& [tensor, taken] : tensors) {
      if (!starts_with(tensor, state)) continue;
      had = true;
      stays = stays || taken;
    }
    if (had && !stays) {
      without.push_back(path);
    } else if (!path.empty() && std::holds_alternative<std::int64_t>(path.back())) {
      lists.emplace(path.begin(), path.end() - 1);
    }
  }
  std::erase_if(without, [&](const Path& path) {
    return !path.empty() && lists.contains(Path(path.begin(), path.end() - 1));
  });
  return without;
}

void add_optimizer(torch::NewFile& file, const Path& keys, Json groups) {
  Path path = keys;
  path.emplace_back(std::string("state"));
  if (!file.tree.contains(path)) file.tree.add_value(path, Json::object());
  file.tree.set_kind(path, torch::Tree::Kind::dict);
  std::int64_t next = 0;
  for (Json& group : groups) {
    Json numbers = Json::array();
    for (std::size_t i = 0; i < group["params"].size(); ++i) {
      Path state = path;
      state.emplace_back(next);
      add_step(file, std::move(state), group);
      numbers.push_back(next++);
    }
    group["param_names"] = std::exchange(group["params"], std::move(numbers));
    group.erase("step");
  }
  path.back() = std::string("param_groups");
  file.tree.add_value(path, std::move(groups));
}

}  // namespace cairn::detail
