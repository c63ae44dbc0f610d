#include <algorithm>
#include <set>
#include <utility>

#include "base/throw.hpp"
#include "manifest/dtype_names.hpp"
#include "pipeline/migrations/numbers.hpp"
#include "pipeline/migrations/parameter_index.hpp"
#include "pipeline/migrations/steps.hpp"
#include "plan/views.hpp"

namespace cairn::detail::migrations {
namespace {

using Numbers = std::vector<std::uint64_t>;

void require_permutation(const Numbers& order) {
  std::vector<bool> seen(order.size());
  for (const std::uint64_t row : order) {
    if (row >= order.size() || seen[row]) {
      fail(Errc::mismatch, "the order has row {} twice, or beyond its end", row);
    }
    seen[row] = true;
  }
}

Numbers order_of(Working& working, const Json& step) {
  if (step.contains("order")) return step["order"].get<Numbers>();
  if (step.contains("order_at")) {
    const DocumentPlace place(step["order_at"].get<std::string>());
    Json document = working.document(place.document());
    const Json* found = place.find(document);
    const bool fine = found != nullptr && found->is_array() &&
                      std::all_of(found->begin(), found->end(),
                                  [](const Json& row) { return row.is_number_unsigned(); });
    if (!fine) fail(Errc::not_found, "at '{}' is no list of rows", place.text());
    return found->get<Numbers>();
  }
  const std::string name = step.at("order_tensor");
  const ParameterIndex index(working);
  if (index.items(name).empty()) nothing_matches(working, name);
  Numbers order;
  for (const std::int64_t row : working.bytes.integers(index.item(name).entry)) {
    order.push_back(static_cast<std::uint64_t>(row));  // below 0: beyond any end
  }
  return order;
}

/// Whether every value of `from` is one of `to`.
bool is_wider(DType from, DType to) {
  if (to == DType::f64) return true;
  return to == DType::f32 && (from == DType::f16 || from == DType::bf16);
}

bool is_float(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

}  // namespace

void permute_all(Working& working, const std::vector<std::string>& names, std::size_t dim,
                 const Numbers& order) {
  require_permutation(order);
  NameChanges changes;
  for (const std::string& name : names) changes[name] = {name};
  require_state_follows(working, changes);
  const ParameterIndex index(working);
  for (const std::string& name : names) {
    const Shape shape = index.item(name).entry.shape;
    require_dim(name, shape, dim);
    if (order.size() != shape[dim]) {
      fail(Errc::mismatch, "the order has {} rows, and '{}' {}", order.size(), name, shape[dim]);
    }
    for (const std::size_t i : index.items(name)) {
      Item& item = working.items[i];
      if (!has_shape(item, shape)) continue;
      working.lost_digests.insert(item.origin);
      item.entry = permuted(item.entry, dim, order);
    }
  }
}

Outcome permute_step(Working& working, const Json& step) {
  Outcome outcome;
  const std::vector<std::string> names = matched(working, step, /*whole_names=*/true);
  if (names.empty()) return outcome;
  const std::size_t dim = step.value("dim", std::size_t{0});
  const Numbers order = order_of(working, step);
  const auto aliases = working.aliases();
  std::vector<std::string> done;
  std::set<std::string> seen;
  for (const std::string& name : names) {
    const auto alias = aliases.find(name);  // of tied weights, whose tensor has another name
    const std::string& tensor = alias == aliases.end() ? name : alias->second;
    if (!seen.insert(tensor).second) continue;
    add_example(outcome, tensor);
    done.push_back(tensor);
  }
  permute_all(working, done, dim, order);
  Numbers back(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) back[order[i]] = i;
  outcome.undo.push_back(
      {{"type", "permute"}, {"names", done}, {"dim", dim}, {"order", std::move(back)}});
  return outcome;
}

Outcome cast_step(Working& working, const Json& step) {
  Outcome outcome;
  const std::vector<std::string> names = matched(working, step, /*whole_names=*/false);
  const std::set<std::string> wanted(names.begin(), names.end());
  const DType dtype = *dtype_from_name(step.at("dtype").get<std::string>());
  std::map<std::string, std::string> back;
  for (Item& item : working.items) {
    const auto role = role_of(item.entry.name);
    const DType before = item.cast.value_or(item.entry.dtype);
    // The optimizer's state keeps its precision.
    if (!role || role->is_slot() || !wanted.contains(role->parameter)) continue;
    if (!is_float(before) || before == dtype) continue;
    if (item.cast) {
      fail(Errc::unsupported, "'{}' is cast a second time, which one step can do", item.entry.name);
    }
    item.cast = dtype;
    back[item.entry.name] = to_string(before);
    add_example(outcome,
                fmt::format("{}: {} -> {}", item.entry.name, to_string(before), to_string(dtype)));
    if (!is_wider(before, dtype)) {
      outcome.no_undo = fmt::format("it casts '{}' from {} to {}, which loses bits",
                                    item.entry.name, to_string(before), to_string(dtype));
    }
  }
  outcome.undo.push_back({{"type", "cast"}, {"dtypes", back}});
  return outcome;
}

}  // namespace cairn::detail::migrations
