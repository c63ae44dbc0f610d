#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/manifest.hpp"
#include "formats/pickle/graph.hpp"

namespace cairn::detail::torch {

/// What the parts of a training checkpoint are, by the keys that Lightning and everybody's own
/// training loops use: the documents `roles`, `optimizers` and `training` (docs/formats.md), as far
/// as there is something to say. Local. Errors: corrupt (a broken NumPy scalar).
std::map<std::string, std::string> facts_of(const pickle::Graph& graph, const TensorTable& tensors);

/// Keys below which training loops keep what an optimizer's and a model's state_dict() gave; the
/// first that there is counts.
inline constexpr std::array<std::string_view, 4> kOptimizerKeys{"optimizer_state_dict", "optimizer",
                                                                "optim", "optimizer_state"};
inline constexpr std::array<std::string_view, 5> kModelKeys{"model_state_dict", "state_dict",
                                                            "model", "module", "net"};

/// How many values there is room for in JSON; of numbers in lists, and bytes of texts, 64 are one.
inline constexpr std::size_t kMostPlainValues = 100'000;
/// The same where several such trees are in memory at once.
inline constexpr std::size_t kFewPlainValues = 10'000;

/// A value as JSON, as the document `training` has it: tensors and arrays by their names, which
/// start with `path`, as far as there is room. Local.
nlohmann::ordered_json plain_json(const pickle::Graph& graph, pickle::Ref ref,
                                  std::vector<PathKey> path = {},
                                  std::size_t most_values = kMostPlainValues);
/// Adds to a JSON object what is in a dict, in the same form, but for some keys: first what has no
/// parts, such as epoch and step, and then the others, as far as there is room. Local.
void add_plain_json(const pickle::Graph& graph, pickle::Ref dict,
                    const std::function<bool(std::string_view)>& but, nlohmann::ordered_json& json,
                    std::vector<PathKey> path = {}, std::size_t most_values = kMostPlainValues);
/// What has parts in the state of an object (lists, dicts, bytes, other objects), in the same form:
/// what opaque_of() does not tell of it. "..." stands for what has no room, and of tensors and
/// arrays there is no more than their class. An empty object where there is no such state. `work`
/// grows by the values and bytes looked at. Local.
nlohmann::ordered_json nested_state(const pickle::Graph& graph, pickle::Ref ref,
                                    std::uint64_t& work);

}  // namespace cairn::detail::torch
