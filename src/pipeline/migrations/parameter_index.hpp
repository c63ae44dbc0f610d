#pragma once

#include <cstddef>
#include <string>
#include <unordered_map>
#include <vector>

#include "pipeline/migrations/working.hpp"

namespace cairn::detail::migrations {

/// Which items belong to which parameters: one look at all of them, for steps that ask for many.
/// Good until items come, go or get other names. All members are Local.
class ParameterIndex {
 public:
  explicit ParameterIndex(const Working& working);

  /// The positions of a parameter's items, in their order; none where there is no such parameter.
  const std::vector<std::size_t>& items(const std::string& name) const;
  /// The item that is the parameter itself. Errors: not_found.
  const Item& item(const std::string& name) const;

 private:
  const Working& working_;
  std::unordered_map<std::string, std::vector<std::size_t>> items_;
};

/// Whether a tensor of a parameter has its shape, and goes where it goes. What has one element
/// belongs to the parameter as a whole, such as a count of steps. Local. Errors: unsupported (it
/// has another shape).
bool has_shape(const Item& item, const Shape& shape);

/// Local. Errors: mismatch (a parameter of that shape has no such dimension).
void require_dim(const std::string& name, const Shape& shape, std::size_t dim);

}  // namespace cairn::detail::migrations
