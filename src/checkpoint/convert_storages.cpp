#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "checkpoint/convert_tree.hpp"

namespace cairn::detail {
namespace {

using Json = nlohmann::ordered_json;
using Group = std::vector<std::size_t>;  // positions in the plan

class Storages {
 public:
  Storages(const Manifest& source, ConvertPlan& plan) : source_(source), plan_(plan) {
    plan.torch.file.tensors.resize(plan.tensors.size());
  }

  void add(const Group& group) {
    if (const auto run = run_of(group)) {
      add_run(group, *run);
      return;
    }
    for (const std::size_t t : group) {
      const TensorEntry& tensor = entry(t);
      plan_.torch.file.tensors[t] = {add_storage(t, tensor), 0, tensor.shape,
                                     torch::dense_strides(tensor.shape)};
    }
  }

 private:
  const TensorEntry& entry(std::size_t t) const { return source_.tensors[plan_.sources[t]]; }

  std::size_t add_storage(std::size_t t, TensorEntry run) {
    const DType dtype = plan_.tensors[t].dtype;
    plan_.torch.file.storages.push_back({dtype, element_count(run.shape) * item_bytes(dtype)});
    plan_.torch.runs.push_back(std::move(run));
    return plan_.torch.runs.size() - 1;
  }

  static Shape strides_of(const TensorEntry& tensor) {
    if (tensor.layout != Layout::strided) return torch::dense_strides(tensor.shape);
    Shape strides = tensor.strides;
    for (std::uint64_t& stride : strides) stride /= item_bytes(tensor.dtype);
    return strides;
  }

  /// The bytes of the source's file that a group's tensors lie in, where these are of one type and
  /// fill them well enough.
  std::optional<Range> run_of(const Group& group) const {
    std::uint64_t begin = std::numeric_limits<std::uint64_t>::max();
    std::uint64_t end = 0;
    std::uint64_t sum = 0;
    const TensorEntry& first = entry(group[0]);
    for (const std::size_t t : group) {
      const TensorEntry& tensor = entry(t);
      const bool plain = tensor.layout == Layout::contiguous || tensor.layout == Layout::strided;
      if (!plain || tensor.extents.size() != 1 || tensor.dtype != first.dtype ||
          plan_.tensors[t].dtype != plan_.tensors[group[0]].dtype ||
          tensor.extents[0].file != first.extents[0].file ||
          source_.files.at(tensor.extents[0].file).access != Access::extents) {
        return std::nullopt;
      }
      const Shape strides = strides_of(tensor);
      std::uint64_t last = 0;
      for (std::size_t d = 0; d < strides.size(); ++d) last += (tensor.shape[d] - 1) * strides[d];
      begin = std::min(begin, tensor.extents[0].offset);
      end = std::max(end, tensor.extents[0].offset + (last + 1) * item_bytes(tensor.dtype));
      sum += tensor.bytes();
    }
    const std::uint64_t item = item_bytes(first.dtype);
    const bool aligned = std::all_of(group.begin(), group.end(), [&](std::size_t t) {
      return (entry(t).extents[0].offset - begin) % item == 0;
    });
    if (!aligned || end - begin > 2 * sum) return std::nullopt;
    return Range{begin, end - begin};
  }

  void add_run(const Group& group, Range run) {
    const TensorEntry& first = entry(group[0]);
    const std::uint64_t item = item_bytes(first.dtype);
    TensorEntry tensor;
    tensor.name = first.name;
    tensor.dtype = first.dtype;
    tensor.shape = {run.count / item};
    tensor.offset = run.start;
    Extent extent;
    extent.file = first.extents[0].file;
    extent.offset = run.start;
    extent.box = Box::whole(tensor.shape);
    tensor.extents.push_back(std::move(extent));
    const std::size_t storage = add_storage(group[0], std::move(tensor));
    for (const std::size_t t : group) {
      plan_.torch.file.tensors[t] = {storage, (entry(t).extents[0].offset - run.start) / item,
                                     entry(t).shape, strides_of(entry(t))};
    }
  }

  const Manifest& source_;
  ConvertPlan& plan_;
};

}  // namespace

void plan_storages(const Manifest& source, const Json& aliases, ConvertPlan& plan) {
  std::unordered_map<std::string, std::size_t> numbers;  // of groups, by name
  for (std::size_t g = 0; g < aliases.size(); ++g) {
    for (const Json& name : aliases[g]) numbers.emplace(name.get<std::string>(), g);
  }
  std::vector<Group> groups;
  std::unordered_map<std::size_t, std::size_t> places;
  for (std::size_t t = 0; t < plan.tensors.size(); ++t) {
    const TensorEntry& tensor = source.tensors[plan.sources[t]];
    const auto number = tensor.extents.empty() ? numbers.end() : numbers.find(tensor.name);
    if (number == numbers.end()) {
      groups.push_back({t});
      continue;
    }
    const auto [place, is_new] = places.try_emplace(number->second, groups.size());
    if (is_new) groups.emplace_back();
    groups[place->second].push_back(t);
  }
  Storages storages(source, plan);
  for (const Group& group : groups) storages.add(group);
}

}  // namespace cairn::detail
