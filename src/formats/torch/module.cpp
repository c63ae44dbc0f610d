#include "formats/torch/module.hpp"

#include <optional>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "base/throw.hpp"
#include "formats/torch/tensor.hpp"
#include "formats/torch/values.hpp"

namespace cairn::detail::torch {
namespace {

using pickle::Graph;
using pickle::Kind;
using pickle::Ref;

/// Bytes of all names: modules in modules have long ones.
constexpr std::size_t kMostNameBytes = 64 << 20;

std::optional<Ref> part_of(const Graph& graph, Ref module, std::string_view part) {
  const Ref attributes = attributes_of(graph, module);
  if (attributes == pickle::kNoRef) return std::nullopt;
  const auto found = graph.find(attributes, part);
  return found && graph.kind(*found) == Kind::dict ? found : std::nullopt;
}

}  // namespace

bool is_module(const Graph& graph, Ref ref) {
  return part_of(graph, ref, "_parameters") && part_of(graph, ref, "_buffers") &&
         part_of(graph, ref, "_modules");
}

std::vector<ModuleTensor> module_tensors(const Graph& graph, Ref ref, std::uint64_t& work) {
  std::vector<ModuleTensor> tensors;
  std::unordered_set<Ref> seen;
  std::size_t name_bytes = 0;
  const auto named = [&](const std::string& prefix, Ref key) {
    std::string name = prefix;
    if (!name.empty()) name += '.';
    if (graph.kind(key) != Kind::text) fail(Errc::corrupt, "a part of a module has no name");
    name += graph.text(key);
    name_bytes += name.size();
    if (name_bytes > kMostNameBytes) fail(Errc::unsafe, "its modules have too long names");
    return name;
  };
  std::vector<std::pair<Ref, std::string>> modules{{ref, {}}};
  while (!modules.empty()) {
    const auto [module, prefix] = std::move(modules.back());
    modules.pop_back();
    if (!seen.insert(module).second || !is_module(graph, module)) continue;
    for (const std::string_view part : {"_parameters", "_buffers"}) {
      const auto pairs = graph.pairs(*part_of(graph, module, part));
      work += pairs.size();
      for (std::size_t i = 0; i < pairs.size(); i += 2) {
        if (!is_tensor(graph, pairs[i + 1]) || !seen.insert(pairs[i + 1]).second) continue;
        tensors.push_back({named(prefix, pairs[i]), pairs[i + 1]});
      }
    }
    // The last one pushed comes first.
    const auto inner = graph.pairs(*part_of(graph, module, "_modules"));
    work += inner.size();
    for (std::size_t i = inner.size(); i > 0; i -= 2) {
      modules.emplace_back(inner[i - 1], named(prefix, inner[i - 2]));
    }
  }
  work += name_bytes;
  return tensors;
}

}  // namespace cairn::detail::torch
