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
  };
  std::vector<bool> seen(graph.size());
  std::vector<Step> way{{graph.root(), 0}};
  seen[graph.root()] = true;
  while (!way.empty()) {
    const Ref child = graph.child(way.back().ref, way.back().next++);
    if (child == kNoRef) {
      way.pop_back();
    } else if (!seen[child]) {
      seen[child] = true;
      way.push_back({child, 0});
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
