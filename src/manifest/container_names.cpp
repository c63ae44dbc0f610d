#include "manifest/container_names.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "cairn/tensor_view.hpp"

namespace cairn::detail::names {
namespace {

constexpr std::string_view kModel = "model/";
constexpr std::array<std::string_view, 4> kModelKeys{"model", "state_dict", "model_state_dict",
                                                     "module"};

std::string in_model(std::string_view name) {
  return fmt::format("{}{}", kModel, escape_component(name));
}

/// The text key that is `back` places before the end of the path; empty where there is none.
std::string_view key_at(const TensorEntry& tensor, std::size_t back) {
  if (back >= tensor.path.size()) return {};
  const auto* text = std::get_if<std::string>(&tensor.path[tensor.path.size() - 1 - back]);
  return text == nullptr ? std::string_view() : std::string_view(*text);
}

}  // namespace

std::string container_name(const TensorEntry& tensor) {
  const std::string_view last = key_at(tensor, 0);
  const std::string_view before = key_at(tensor, 1);
  if (!last.empty() &&
      std::find(kModelKeys.begin(), kModelKeys.end(), before) != kModelKeys.end()) {
    return in_model(last);
  }
  if (!last.empty() && !before.empty() && key_at(tensor, 2) == "state" &&
      key_at(tensor, 3) == "optimizer") {
    return fmt::format("optimizer/{}/{}", escape_component(before), escape_component(last));
  }
  return in_model(tensor.name);
}

std::string plain_name(const std::string& name) {
  if (!name.starts_with(kModel)) return name;
  std::string plain = unescape_component(std::string_view(name).substr(kModel.size()));
  return in_model(plain) == name && !looks_like_path(plain) ? plain : name;
}

bool looks_like_path(std::string_view name) {
  return name.starts_with(kModel) || name.starts_with("optimizer/") || name.starts_with("ranks/");
}

std::string weights_file(std::uint64_t step) { return fmt::format("weights-{:08}.h5", step); }

}  // namespace cairn::detail::names
