#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <utility>

#include "base/throw.hpp"
#include "manifest/dtype_names.hpp"
#include "pipeline/migrations/numbers.hpp"
#include "pipeline/migrations/pattern.hpp"
#include "pipeline/migrations/steps.hpp"
#include "plan/views.hpp"

namespace cairn::detail::migrations {
namespace {

using Numbers = std::vector<std::uint64_t>;

void require_untied(Working& working, const std::string& name) {
  for (const auto& [alias, other] : working.aliases()) {
    if (name != alias && name != other) continue;
    fail(Errc::unsupported, "'{}' and '{}' are one tensor (tied weights)", alias, other);
  }
}

/// The shape of the parameter itself.
Shape shape_of(const Working& working, const std::string& name) {
  for (const std::size_t i : working.items_of(name)) {
    if (!role_of(working.items[i].entry.name)->is_slot()) return working.items[i].entry.shape;
  }
  fail(Errc::not_found, "there is no parameter '{}'", name);
}

/// Whether a tensor of a parameter has its shape, and goes where it goes. What has one element
/// belongs to the parameter as a whole, such as a count of steps.
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

void require_new(Working& working, const std::string& name, const std::set<std::string>& old) {
  const std::vector<std::string> all = working.parameters();
  if (!old.contains(name) && std::find(all.begin(), all.end(), name) != all.end()) {
    fail(Errc::mismatch, "there is another '{}' already", name);
  }
}

Numbers equal_parts(const std::string& name, std::uint64_t total, std::size_t parts) {
  if (total % parts != 0) {
    fail(Errc::mismatch, "{} rows of '{}' can't be divided into {} equal parts; give 'sizes'",
         total, name, parts);
  }
  return Numbers(parts, total / parts);
}

/// One tensor, of each of the parts of a whole.
Item joined_item(Working& working, const std::vector<const Item*>& parts, const Shape& shape,
                 std::size_t dim, const std::string& name) {
  Item result = *parts.front();
  const bool is_slot_of_all = !has_shape(*parts.front(), shape);
  std::vector<const TensorEntry*> entries;
  for (const Item* part : parts) {
    entries.push_back(&part->entry);
    if (part->cast || result.cast) {
      fail(Errc::unsupported,
           "'{}' and '{}' are to become one, and values of theirs are cast in the same run: write "
           "a file between the two (--to)",
           result.entry.name, part->entry.name);
    }
    Shape a = part->entry.shape;
    Shape b = result.entry.shape;
    if (!is_slot_of_all && a.size() == b.size()) a[dim] = b[dim] = 0;
    if (a != b || part->entry.dtype != result.entry.dtype) {
      fail(Errc::mismatch, "'{}' and '{}' differ in dtype or shape beyond dimension {}",
           result.entry.name, part->entry.name, dim);
    }
    if (is_slot_of_all && part != parts.front() &&
        !working.bytes.same(parts.front()->entry, part->entry)) {
      fail(Errc::mismatch, "'{}' and '{}' differ, and only one can stay", parts.front()->entry.name,
           part->entry.name);
    }
  }
  if (is_slot_of_all) {
    result.entry.name = name;
    return result;
  }
  for (const Item* part : parts) working.lost_digests.insert(part->origin);
  result.entry = joined(entries, dim, name);
  return result;
}

}  // namespace

void split_into(Working& working, const std::string& name, const std::vector<std::string>& parts,
                std::size_t dim, const Numbers& sizes) {
  require_untied(working, name);
  const Shape shape = shape_of(working, name);
  require_dim(name, shape, dim);
  std::uint64_t total = 0;
  for (const std::uint64_t size : sizes) total += std::min(size, shape[dim] + 1);
  if (total != shape[dim] || sizes.size() != parts.size()) {
    fail(Errc::mismatch, "'{}' has {} rows in dimension {}, and its parts {}", name, shape[dim],
         dim, total);
  }
  std::set<std::string> distinct(parts.begin(), parts.end());
  if (distinct.size() != parts.size())
    fail(Errc::mismatch, "two parts of '{}' have one name", name);
  for (const std::string& part : parts) require_new(working, part, {name});
  NameChanges changes;
  changes[name] = parts;
  require_state_follows(working, changes);
  std::vector<Item> items;
  for (Item& item : working.items) {
    const auto role = role_of(item.entry.name);
    if (!role || role->parameter != name) {
      items.push_back(std::move(item));
      continue;
    }
    const bool divides = has_shape(item, shape);
    if (divides) working.lost_digests.insert(item.origin);
    Box box = Box::whole(item.entry.shape);
    std::uint64_t at = 0;
    for (std::size_t p = 0; p < parts.size(); ++p) {
      Item part = item;
      part.entry.name = role->name_for(parts[p]);
      if (divides) {
        box.start[dim] = at;
        box.count[dim] = sizes[p];
        at += sizes[p];
        part.entry = slice_of(item.entry, box, part.entry.name);
      }
      items.push_back(std::move(part));
    }
  }
  working.items = std::move(items);
  follow_names(working, changes);
}

void merge_into(Working& working, const std::vector<std::string>& parts, const std::string& name,
                std::size_t dim) {
  const std::set<std::string> distinct(parts.begin(), parts.end());
  if (distinct.size() != parts.size()) fail(Errc::mismatch, "'{}' has a part twice", name);
  for (const std::string& part : parts) require_untied(working, part);
  require_new(working, name, distinct);
  NameChanges changes;
  for (const std::string& part : parts) changes[part] = {name};
  require_state_follows(working, changes);
  const Shape shape = shape_of(working, parts.at(0));
  require_dim(parts[0], shape, dim);
  // By what they are to be called: the tensors of each part.
  std::map<std::string, std::vector<const Item*>> wholes;
  for (const std::string& part : parts) {
    for (const std::size_t i : working.items_of(part)) {
      const Item& item = working.items[i];
      wholes[role_of(item.entry.name)->name_for(name)].push_back(&item);
    }
  }
  std::map<std::string, Item> made;
  for (const auto& [whole, tensors] : wholes) {
    if (tensors.size() != parts.size()) {
      fail(Errc::mismatch, "not every part of '{}' is there", whole);
    }
    made.emplace(whole, joined_item(working, tensors, shape, dim, whole));
  }
  std::vector<Item> items;
  for (Item& item : working.items) {
    const auto role = role_of(item.entry.name);
    if (!role || !distinct.contains(role->parameter)) {
      items.push_back(std::move(item));
    } else if (role->parameter == parts[0]) {
      items.push_back(std::move(made.at(role->name_for(name))));
    }
  }
  working.items = std::move(items);
  follow_names(working, changes);
}

Outcome split_step(Working& working, const Json& step) {
  Outcome outcome;
  const std::string text = step.at("name");
  const NamePattern pattern(text);
  const std::size_t dim = step.value("dim", std::size_t{0});
  std::vector<NameTemplate> templates;
  for (const Json& into : step.at("into")) {
    templates.emplace_back(into.get<std::string>(), pattern, std::map<std::string, std::int64_t>());
  }
  for (const std::string& name : working.parameters()) {
    const auto match = pattern.match_whole(name);
    if (!match) continue;
    require_untied(working, name);
    const Shape shape = shape_of(working, name);
    require_dim(name, shape, dim);
    std::vector<std::string> parts;
    for (const NameTemplate& part : templates) parts.push_back(part.fill(*match));
    const Numbers sizes = step.contains("sizes") ? step["sizes"].get<Numbers>()
                                                 : equal_parts(name, shape[dim], parts.size());
    split_into(working, name, parts, dim, sizes);
    add_example(outcome, fmt::format("{} -> {}", name, fmt::join(parts, ", ")));
    const Json back{{"type", "merge"}, {"names", parts}, {"into", name}, {"dim", dim}};
    outcome.undo.insert(outcome.undo.begin(), back);
  }
  if (outcome.changed == 0 && !is_optional(step)) nothing_matches(working, text);
  return outcome;
}

Outcome merge_step(Working& working, const Json& step) {
  Outcome outcome;
  const std::vector<std::string> names = step.at("names").get<std::vector<std::string>>();
  const NamePattern pattern(names[0]);
  const std::size_t dim = step.value("dim", std::size_t{0});
  std::vector<NameTemplate> templates;
  for (const std::string& name : names) {
    templates.emplace_back(name, pattern, std::map<std::string, std::int64_t>());
  }
  const NameTemplate whole(step.at("into").get<std::string>(), pattern, {});
  for (const std::string& first : working.parameters()) {
    const auto match = pattern.match_whole(first);
    if (!match) continue;
    std::vector<std::string> parts;
    Numbers sizes;
    for (const NameTemplate& part : templates) {
      parts.push_back(part.fill(*match));
      require_untied(working, parts.back());
      const Shape shape = shape_of(working, parts.back());
      require_dim(parts.back(), shape, dim);
      sizes.push_back(shape[dim]);
    }
    const std::string name = whole.fill(*match);
    merge_into(working, parts, name, dim);
    add_example(outcome, fmt::format("{} -> {}", fmt::join(parts, ", "), name));
    const Json back{
        {"type", "split"}, {"name", name}, {"into", parts}, {"dim", dim}, {"sizes", sizes}};
    outcome.undo.insert(outcome.undo.begin(), back);
  }
  if (outcome.changed == 0 && !is_optional(step)) nothing_matches(working, names[0]);
  return outcome;
}

void permute_rows(Working& working, const std::string& name, std::size_t dim,
                  const Numbers& order) {
  const Shape shape = shape_of(working, name);
  require_dim(name, shape, dim);
  std::vector<bool> seen(order.size());
  for (const std::uint64_t row : order) {
    if (row >= order.size() || seen[row]) {
      fail(Errc::mismatch, "the order has row {} twice, or beyond its end", row);
    }
    seen[row] = true;
  }
  if (order.size() != shape[dim]) {
    fail(Errc::mismatch, "the order has {} rows, and '{}' {}", order.size(), name, shape[dim]);
  }
  require_state_follows(working, {{name, {name}}});
  for (const std::size_t i : working.items_of(name)) {
    Item& item = working.items[i];
    if (!has_shape(item, shape)) continue;
    working.lost_digests.insert(item.origin);
    item.entry = permuted(item.entry, dim, order);
  }
}

namespace {

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
  Numbers order;
  for (const std::size_t i : working.items_of(name)) {
    if (role_of(working.items[i].entry.name)->is_slot()) continue;
    for (const std::int64_t row : working.bytes.integers(working.items[i].entry)) {
      order.push_back(static_cast<std::uint64_t>(row));  // below 0: beyond any end
    }
    return order;
  }
  nothing_matches(working, name);
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

Outcome permute_step(Working& working, const Json& step) {
  Outcome outcome;
  const std::vector<std::string> names = matched(working, step, /*whole_names=*/true);
  if (names.empty()) return outcome;
  const std::size_t dim = step.value("dim", std::size_t{0});
  const Numbers order = order_of(working, step);
  const auto aliases = working.aliases();
  std::vector<std::string> done;
  for (const std::string& name : names) {
    if (aliases.contains(name)) continue;  // with the tensor that it stands for
    permute_rows(working, name, dim, order);
    add_example(outcome, name);
    done.push_back(name);
  }
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
  Json back = Json::object();
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
  outcome.undo.push_back({{"type", "cast"}, {"dtypes", std::move(back)}});
  return outcome;
}

}  // namespace cairn::detail::migrations
