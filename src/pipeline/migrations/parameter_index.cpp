#include "pipeline/migrations/parameter_index.hpp"

#include "base/throw.hpp"

namespace cairn::detail::migrations {

ParameterIndex::ParameterIndex(const Working& working) : working_(working) {
  for (std::size_t i = 0; i < working.items.size(); ++i) {
    if (const auto role = role_of(working.items[i].entry.name)) {
      items_[role->parameter].push_back(i);
    }
  }
}

const std::vector<std::size_t>& ParameterIndex::items(const std::string& name) const {
  static const std::vector<std::size_t> kNone;
  const auto found = items_.find(name);
  return found == items_.end() ? kNone : found->second;
}

const Item& ParameterIndex::item(const std::string& name) const {
  for (const std::size_t i : items(name)) {
    if (!role_of(working_.items[i].entry.name)->is_slot()) return working_.items[i];
  }
  fail(Errc::not_found, "there is no parameter '{}'", name);
}

bool has_shape(const Item& item, const Shape& shape) {
  if (item.entry.shape == shape) return true;
  if (element_count(item.entry.shape) == 1) return false;
  fail(Errc::unsupported, "'{}' has another shape than its parameter", item.entry.name);
}

void require_dim(const std::string& name, const Shape& shape, std::size_t dim) {
  if (dim >= shape.size()) {
    fail(Errc::mismatch, "'{}' has {} dimensions, and none of number {}", name, shape.size(), dim);
  }
}

}  // namespace cairn::detail::migrations
