#include "cairn/manifest.hpp"

#include <algorithm>

namespace cairn {

const TensorEntry* Manifest::find(std::string_view name) const {
  const auto it = std::find_if(tensors.begin(), tensors.end(),
                               [&](const TensorEntry& tensor) { return tensor.name == name; });
  return it == tensors.end() ? nullptr : &*it;
}

std::uint64_t Manifest::tensor_bytes() const {
  std::uint64_t sum = 0;
  for (const TensorEntry& tensor : tensors) sum += tensor.bytes();
  return sum;
}

std::unordered_map<std::string_view, std::size_t> index_by_name(const Manifest& manifest) {
  std::unordered_map<std::string_view, std::size_t> by_name;
  by_name.reserve(manifest.tensors.size());
  for (std::size_t i = 0; i < manifest.tensors.size(); ++i) {
    by_name.emplace(manifest.tensors[i].name, i);
  }
  return by_name;
}

}  // namespace cairn
