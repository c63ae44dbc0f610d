#include "formats/torch/flat.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/torch/repr.hpp"
#include "formats/torch/values.hpp"

namespace cairn::detail::torch {
namespace {

using pickle::Graph;
using pickle::Kind;
using pickle::Ref;

std::string_view type_of(Kind kind) {
  switch (kind) {
    case Kind::tuple:
      return "tuple";
    case Kind::set:
      return "set";
    case Kind::frozenset:
      return "frozenset";
    default:
      return "list";
  }
}

/// Whether its JSON value says all about a value.
bool is_told(const Graph& graph, Ref ref, const Json& value) {
  switch (graph.kind(ref)) {
    case Kind::none:
    case Kind::boolean:
    case Kind::text:
      return true;
    case Kind::integer:
    case Kind::big_integer:
      return value.is_number();
    case Kind::real:
      return std::isfinite(graph.real(ref));
    default:
      return false;
  }
}

/// All that can be told about an element; of what has parts itself, only a tuple of single values.
Json part_of(const Graph& graph, Ref ref, bool outer) {
  if (auto scalar = scalar_of(graph, ref)) return std::move(*scalar);
  if (outer && graph.kind(ref) == Kind::tuple) return collection_of(graph, ref);
  return {{"type", "..."}, {"value", "..."}};
}

Json parts_of(const Graph& graph, std::span<const Ref> elements, const Json& values, bool outer) {
  Json parts = Json::array();
  for (std::size_t i = 0; i < elements.size(); ++i) {
    if (is_told(graph, elements[i], values[i])) continue;
    parts.push_back(Json::array({i, part_of(graph, elements[i], outer)}));
  }
  return parts;
}

/// The elements of a set in the order in which Python sorts it by repr(), and their values.
std::vector<Ref> sorted(const Graph& graph, Ref set, Json& values) {
  const auto elements = graph.elements(set);
  std::vector<std::string> texts;
  for (const Ref element : elements) texts.push_back(repr_of(graph, element));
  std::vector<std::size_t> order(elements.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return texts[a] < texts[b]; });
  std::vector<Ref> in_order;
  Json values_in_order = Json::array();
  for (const std::size_t i : order) {
    in_order.push_back(elements[i]);
    values_in_order.push_back(std::move(values[i]));
  }
  values = std::move(values_in_order);
  return in_order;
}

}  // namespace

Json value_of(const Graph& graph, Ref ref) {
  if (const auto scalar = scalar_of(graph, ref)) return scalar->at("value");
  if (graph.kind(ref) == Kind::tuple) {
    Json values = Json::array();
    for (const Ref part : graph.elements(ref)) {
      const auto scalar = scalar_of(graph, part);
      values.push_back(scalar ? scalar->at("value") : Json("..."));
    }
    return values;
  }
  return "...";
}

Json values_of(const Graph& graph, Ref ref) {
  Json values = Json::array();
  for (const Ref part : graph.elements(ref)) values.push_back(value_of(graph, part));
  return values;
}

Json collection_of(const Graph& graph, Ref ref) {
  const Kind kind = graph.kind(ref);
  const bool is_set = kind == Kind::set || kind == Kind::frozenset;
  Json values = values_of(graph, ref);
  Json parts;
  if (is_set) {
    const std::vector<Ref> elements = sorted(graph, ref, values);
    parts = parts_of(graph, elements, values, /*outer=*/true);
  } else {
    parts = parts_of(graph, graph.elements(ref), values, /*outer=*/false);
  }
  Json leaf = {{"type", type_of(kind)}, {"value", std::move(values)}};
  if (!parts.empty()) leaf["parts"] = std::move(parts);
  return leaf;
}

bool is_flat(const Graph& graph, Ref ref) {
  constexpr std::size_t kFewNames = 8;
  constexpr std::size_t kFewNumbers = 2048;  // a schedule's or a history's, not a table's
  const auto elements = graph.elements(ref);
  if (elements.size() <= kFewNames) return false;
  return std::all_of(elements.begin(), elements.end(), [&](Ref part) {
    const Kind kind = graph.kind(part);
    return kind == Kind::integer || kind == Kind::big_integer || kind == Kind::boolean ||
           kind == Kind::text || (kind == Kind::real && elements.size() > kFewNumbers);
  });
}

}  // namespace cairn::detail::torch
