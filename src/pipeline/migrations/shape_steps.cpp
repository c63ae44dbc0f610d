#include <fmt/ranges.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/throw.hpp"
#include "pipeline/migrations/numbers.hpp"
#include "pipeline/migrations/parameter_index.hpp"
#include "pipeline/migrations/pattern.hpp"
#include "pipeline/migrations/steps.hpp"
#include "plan/views.hpp"

namespace cairn::detail::migrations {
namespace {

using Numbers = std::vector<std::uint64_t>;

/// New names must be free; those of what changes are.
void require_free(Working& working, const std::vector<std::string>& fresh,
                  const NameChanges& changes) {
  std::unordered_set<std::string> taken;
  for (std::string& name : working.parameters()) {
    if (!changes.contains(name)) taken.insert(std::move(name));
  }
  for (const std::string& name : fresh) {
    if (!taken.insert(name).second) {
      fail(Errc::mismatch, "two parameters would be called '{}'", name);
    }
  }
}

Numbers equal_parts(const std::string& name, std::uint64_t total, std::size_t parts) {
  if (total % parts != 0) {
    fail(Errc::mismatch, "{} rows of '{}' can't be divided into {} equal parts; give 'sizes'",
         total, name, parts);
  }
  return Numbers(parts, total / parts);
}

/// Checks the parts' sizes against the whole, or divides it equally.
void fit_sizes(Division& division, std::uint64_t rows, std::size_t dim) {
  const std::size_t parts = division.parts.size();
  if (parts == 0) fail(Errc::mismatch, "'{}' would have no parts", division.whole);
  if (division.sizes.empty()) division.sizes = equal_parts(division.whole, rows, parts);
  std::uint64_t total = 0;
  for (const std::uint64_t size : division.sizes) total += std::min(size, rows + 1);
  if (total != rows || division.sizes.size() != parts) {
    fail(Errc::mismatch, "'{}' has {} rows in dimension {}, and its parts {}", division.whole, rows,
         dim, total);
  }
}

/// The parts of one tensor of a parameter of that shape, behind `items`.
void add_parts(Working& working, const Item& item, const Role& role, const Division& division,
               const Shape& shape, std::size_t dim, std::vector<Item>& items) {
  const bool divides = has_shape(item, shape);
  if (divides) working.lost_digests.insert(item.origin);
  Box box = Box::whole(item.entry.shape);
  std::uint64_t at = 0;
  for (std::size_t p = 0; p < division.parts.size(); ++p) {
    Item part = item;
    part.entry.name = role.name_for(division.parts[p]);
    if (divides) {
      box.start[dim] = at;
      box.count[dim] = division.sizes[p];
      at += division.sizes[p];
      part.entry = slice_of(item.entry, box, part.entry.name);
    }
    items.push_back(std::move(part));
  }
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

/// The tensors of a whole, by what they are called.
std::map<std::string, Item> joined_items(Working& working, const ParameterIndex& index,
                                         const Division& division, std::size_t dim) {
  const Shape shape = index.item(division.parts.at(0)).entry.shape;
  require_dim(division.parts[0], shape, dim);
  std::map<std::string, std::vector<const Item*>> wholes;
  for (const std::string& part : division.parts) {
    for (const std::size_t i : index.items(part)) {
      const Item& item = working.items[i];
      wholes[role_of(item.entry.name)->name_for(division.whole)].push_back(&item);
    }
  }
  std::map<std::string, Item> made;
  for (const auto& [name, tensors] : wholes) {
    if (tensors.size() != division.parts.size()) {
      fail(Errc::mismatch, "not every part of '{}' is there", name);
    }
    made.emplace(name, joined_item(working, tensors, shape, dim, name));
  }
  return made;
}

/// What fills the names of a step's parts for each whole, or for each first part, that matches.
class Parts {
 public:
  Parts(const std::string& pattern, const Json& parts, const std::string& whole)
      : pattern_(pattern), whole_(whole, pattern_, {}) {
    for (const Json& part : parts) {
      parts_.emplace_back(part.get<std::string>(), pattern_, std::map<std::string, std::int64_t>());
    }
  }

  std::vector<Division> all(Working& working) const {
    std::vector<Division> divisions;
    for (const std::string& name : working.parameters()) {
      const auto match = pattern_.match_whole(name);
      if (!match) continue;
      Division& division = divisions.emplace_back();
      division.whole = whole_.fill(*match);
      for (const NameTemplate& part : parts_) division.parts.push_back(part.fill(*match));
    }
    return divisions;
  }

 private:
  NamePattern pattern_;
  NameTemplate whole_;
  std::vector<NameTemplate> parts_;
};

Json way_back(const char* type, const std::vector<Division>& divisions, std::size_t dim) {
  Json all = Json::array();
  for (const Division& division : divisions) {
    all.push_back(
        {{"whole", division.whole}, {"parts", division.parts}, {"sizes", division.sizes}});
  }
  return {{"type", type}, {"dim", dim}, {"all", std::move(all)}};
}

}  // namespace

void split_all(Working& working, std::vector<Division>& divisions, std::size_t dim) {
  NameChanges changes;
  std::vector<std::string> fresh;
  for (const Division& division : divisions) {
    if (!changes.emplace(division.whole, division.parts).second) {
      fail(Errc::mismatch, "'{}' would be divided twice", division.whole);
    }
    fresh.insert(fresh.end(), division.parts.begin(), division.parts.end());
  }
  require_untied(working, changes);
  require_free(working, fresh, changes);
  require_state_follows(working, changes);
  const ParameterIndex index(working);
  std::unordered_map<std::string, std::pair<const Division*, Shape>> wholes;
  for (Division& division : divisions) {
    const Shape& shape = index.item(division.whole).entry.shape;
    require_dim(division.whole, shape, dim);
    fit_sizes(division, shape[dim], dim);
    wholes.emplace(division.whole, std::pair(&division, shape));
  }
  std::vector<Item> items;
  for (Item& item : working.items) {
    const auto role = role_of(item.entry.name);
    const auto whole = role ? wholes.find(role->parameter) : wholes.end();
    if (whole == wholes.end()) {
      items.push_back(std::move(item));
    } else {
      add_parts(working, item, *role, *whole->second.first, whole->second.second, dim, items);
    }
  }
  working.items = std::move(items);
  follow_names(working, changes);
}

void merge_all(Working& working, std::vector<Division>& divisions, std::size_t dim) {
  NameChanges changes;
  std::vector<std::string> fresh;
  for (const Division& division : divisions) {
    for (const std::string& part : division.parts) {
      if (!changes.emplace(part, std::vector<std::string>{division.whole}).second) {
        fail(Errc::mismatch, "'{}' would be a part twice", part);
      }
    }
    fresh.push_back(division.whole);
  }
  require_untied(working, changes);
  require_free(working, fresh, changes);
  require_state_follows(working, changes);
  const ParameterIndex index(working);
  std::unordered_map<std::string, std::map<std::string, Item>> made;  // by the first part
  for (Division& division : divisions) {
    made.emplace(division.parts.at(0), joined_items(working, index, division, dim));
    division.sizes.clear();
    for (const std::string& part : division.parts) {
      division.sizes.push_back(index.item(part).entry.shape[dim]);
    }
  }
  std::vector<Item> items;
  for (Item& item : working.items) {
    const auto role = role_of(item.entry.name);
    const auto change = role ? changes.find(role->parameter) : changes.end();
    if (change == changes.end()) {
      items.push_back(std::move(item));
      continue;
    }
    const auto first = made.find(role->parameter);
    if (first == made.end()) continue;
    items.push_back(std::move(first->second.at(role->name_for(change->second[0]))));
  }
  working.items = std::move(items);
  follow_names(working, changes);
}

Outcome split_step(Working& working, const Json& step) {
  const std::string name = step.at("name");
  const std::size_t dim = step.value("dim", std::size_t{0});
  std::vector<Division> divisions = Parts(name, step.at("into"), name).all(working);
  if (divisions.empty() && !is_optional(step)) nothing_matches(working, name);
  for (Division& division : divisions) division.sizes = step.value("sizes", Numbers());
  split_all(working, divisions, dim);
  Outcome outcome;
  for (const Division& division : divisions) {
    add_example(outcome, fmt::format("{} -> {}", division.whole, fmt::join(division.parts, ", ")));
  }
  if (!divisions.empty()) outcome.undo.push_back(way_back("merge", divisions, dim));
  return outcome;
}

Outcome merge_step(Working& working, const Json& step) {
  const std::string first = step.at("names").at(0);
  const std::size_t dim = step.value("dim", std::size_t{0});
  std::vector<Division> divisions = Parts(first, step["names"], step.at("into")).all(working);
  if (divisions.empty() && !is_optional(step)) nothing_matches(working, first);
  merge_all(working, divisions, dim);
  Outcome outcome;
  for (const Division& division : divisions) {
    add_example(outcome, fmt::format("{} -> {}", fmt::join(division.parts, ", "), division.whole));
  }
  if (!divisions.empty()) outcome.undo.push_back(way_back("split", divisions, dim));
  return outcome;
}

}  // namespace cairn::detail::migrations
