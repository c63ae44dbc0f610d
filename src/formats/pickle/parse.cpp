#include "formats/pickle/parse.hpp"

#include <cstdint>
#include <utility>

#include "base/throw.hpp"
#include "formats/pickle/machine.hpp"

namespace cairn::detail::pickle {
namespace {

/// Walks all values once, in the order in which they were written, and so never deeper than the
/// writer, who had to nest his calls as deep.
void check_depth(const Graph& graph, std::size_t depth, std::string_view what) {
  struct Step {
    Ref ref;
    std::size_t next;
    std::span<const Ref> row;  // what it refers to, where that lies in a row
  };
  const auto step = [&](Ref ref) {
    return Step{ref, 0, graph.kind(ref) == Kind::dict ? graph.pairs(ref) : graph.elements(ref)};
  };
  const auto next_of = [&](Step& at) {
    if (at.next < at.row.size()) return at.row[at.next++];
    return at.row.empty() ? graph.child(at.ref, at.next++) : kNoRef;
  };
  if (graph.size() <= depth) return;
  std::vector<bool> seen(graph.size());
  std::vector<Step> way{step(graph.root())};
  seen[graph.root()] = true;
  while (!way.empty()) {
    const Ref child = next_of(way.back());
    if (child == kNoRef) {
      way.pop_back();
    } else if (!seen[child]) {
      seen[child] = true;
      if (graph.is_leaf(child) && way.size() < depth) continue;
      way.push_back(step(child));
      if (way.size() > depth) {
        fail(Errc::unsafe, "{}: values are nested deeper than {}", what, depth);
      }
    }
  }
}

}  // namespace

Limits limits_of_table(std::uint64_t stream_bytes) {
  constexpr std::uint64_t kOfStream = 3;  // objects with a few fields each take about as much
  Limits limits;
  limits.memory_bytes += kOfStream * stream_bytes;
  limits.depth = SIZE_MAX;
  return limits;
}

Graph parse(std::vector<std::byte> bytes, std::string_view what, const Limits& limits) {
  Machine machine(std::move(bytes), what, limits);
  machine.run();
  machine.settle_keys();
  Graph graph = machine.take();
  check_depth(graph, limits.depth, what);
  return graph;
}

}  // namespace cairn::detail::pickle
