#include <algorithm>
#include <set>
#include <utility>

#include "base/bounded_regex.hpp"
#include "base/throw.hpp"
#include "pipeline/migrations/numbers.hpp"
#include "pipeline/migrations/pattern.hpp"
#include "pipeline/migrations/steps.hpp"

namespace cairn::detail::migrations {
namespace {

using Names = std::map<std::string, std::string>;

Outcome renamed(Working& working, const Names& names) {
  Outcome outcome;
  Names back;
  for (const auto& [from, to] : names) {
    add_example(outcome, fmt::format("{} -> {}", from, to));
    back[to] = from;
  }
  if (names.empty()) return outcome;
  rename_to(working, names);
  outcome.undo.push_back({{"type", "rename"}, {"names", back}});
  return outcome;
}

/// The numbers of a step's `values`.
std::map<std::string, std::int64_t> values_of(Working& working, const Json& step) {
  std::map<std::string, std::int64_t> values;
  const Json words = step.value("values", Json::object());
  for (const auto& [word, text] : words.items()) {
    const DocumentPlace place(text.get<std::string>());
    Json document = working.document(place.document());
    const Json* found = place.find(document);
    if (found == nullptr || !found->is_number_integer()) {
      fail(Errc::not_found, "'{}' ({}) is {}", place.text(), word,
           found == nullptr ? "not in the documents" : "no whole number");
    }
    values[word] = found->get<std::int64_t>();
  }
  return values;
}

struct Rule {
  std::string text;
  NamePattern from;
  NameTemplate to;
  bool used = false;
};

Outcome rename_by(Working& working, const Json& step, std::vector<Rule> rules) {
  Names names;
  for (const std::string& name : working.parameters()) {
    for (Rule& rule : rules) {
      const auto match = rule.from.match(name);
      if (!match) continue;
      rule.used = true;
      std::string to = rule.to.fill(*match) + match->rest;
      if (to != name) names.emplace(name, std::move(to));
      break;  // the first rule that matches; all see the names of before
    }
  }
  for (const Rule& rule : rules) {
    if (!rule.used && !is_optional(step)) nothing_matches(working, rule.text);
  }
  return renamed(working, names);
}

}  // namespace

void rename_to(Working& working, const Names& names) {
  std::map<std::string, std::string> taken;
  NameChanges changes;
  for (const std::string& name : working.parameters()) {
    const auto found = names.find(name);
    const std::string& to = found == names.end() ? name : found->second;
    if (to.empty()) fail(Errc::mismatch, "'{}' would have no name", name);
    const auto [other, is_new] = taken.emplace(to, name);
    if (!is_new) {
      fail(Errc::mismatch, "'{}' and '{}' would both be called '{}'", other->second, name, to);
    }
    if (found != names.end()) changes[name] = {to};
  }
  for (const auto& [from, to] : names) {
    if (!changes.contains(from)) fail(Errc::corrupt, "there is no parameter '{}'", from);
  }
  for (Item& item : working.items) {
    const auto role = role_of(item.entry.name);
    const auto found = role ? names.find(role->parameter) : names.end();
    if (found != names.end()) item.entry.name = role->name_for(found->second);
  }
  follow_names(working, changes);
}

Outcome rename_step(Working& working, const Json& step) {
  const auto values = values_of(working, step);
  std::vector<Rule> rules;
  for (const auto& [from, to] : step.at("names").items()) {
    NamePattern pattern(from);
    NameTemplate made(to.get<std::string>(), pattern, values);
    rules.push_back({from, std::move(pattern), std::move(made)});
  }
  return rename_by(working, step, std::move(rules));
}

Outcome wrap_step(Working& working, const Json& step) {
  const bool wraps = step.at("type") == "wrap";
  std::vector<Rule> rules;
  for (const Json& below : step.at("below")) {
    const std::string outer = below.get<std::string>();
    const std::string inner = outer + "." + step.at("segment").get<std::string>();
    NamePattern pattern(wraps ? outer : inner);
    NameTemplate made(wraps ? inner : outer, pattern, {});
    rules.push_back({wraps ? outer : inner, std::move(pattern), std::move(made)});
  }
  return rename_by(working, step, std::move(rules));
}

Outcome rename_regex_step(Working& working, const Json& step) {
  const std::string from = step.at("from");
  const BoundedRegex regex(from, "'from'");
  Names names;
  bool found = false;
  for (const std::string& name : working.parameters()) {
    if (!regex.found_in(name)) continue;
    found = true;
    std::string to = regex.replaced_in(name, step.at("to").get<std::string>());
    if (to != name) names.emplace(name, std::move(to));
  }
  if (!found && !is_optional(step)) nothing_matches(working, from);
  if (step.contains("back")) {
    const std::string back = step["back"].at("from");
    const BoundedRegex inverse(back, "'back.from'");
    for (const auto& [old, to] : names) {
      const std::string again = inverse.replaced_in(to, step["back"].at("to").get<std::string>());
      if (again == old) continue;
      fail(Errc::mismatch, "'back' does not lead back: '{}' becomes '{}', and that '{}'", old, to,
           again);
    }
  }
  return renamed(working, names);
}

Outcome drop_step(Working& working, const Json& step) {
  Outcome outcome;
  const std::vector<std::string> names = matched(working, step, /*whole_names=*/false);
  const std::set<std::string> dropped(names.begin(), names.end());
  const auto aliases = working.aliases();
  NameChanges changes;
  for (const std::string& name : names) {
    changes[name] = {};
    add_example(outcome, name);
  }
  // The value of tied weights stays as long as one of their names does.
  for (const auto& [alias, name] : aliases) {
    if (dropped.contains(name) && !dropped.contains(alias) && changes[name].empty()) {
      changes[name] = {alias};
    }
  }
  require_state_follows(working, changes);
  std::vector<Item> kept;
  std::size_t lost = 0;
  Names back;
  for (Item& item : working.items) {
    const auto role = role_of(item.entry.name);
    const auto change = role ? changes.find(role->parameter) : changes.end();
    if (change == changes.end()) {
      kept.push_back(std::move(item));
    } else if (change->second.empty()) {
      ++lost;
    } else {
      item.entry.name = role->name_for(change->second[0]);
      back[change->second[0]] = role->parameter;
      kept.push_back(std::move(item));
    }
  }
  working.items = std::move(kept);
  follow_names(working, changes);
  if (!back.empty()) outcome.undo.push_back({{"type", "rename"}, {"names", back}});
  if (lost != 0) {
    outcome.no_undo =
        fmt::format("it drops '{}'{}, whose values are kept nowhere", names[0],
                    names.size() > 1 ? fmt::format(" and {} more", names.size() - 1) : "");
  }
  return outcome;
}

Outcome unite_step(Working& working, const Json& step) {
  Outcome outcome;
  const std::vector<std::string> names = matched(working, step, /*whole_names=*/true);
  if (names.empty()) return outcome;
  const std::string into = step.at("into");
  NameChanges changes;
  for (const std::string& name : names) changes[name] = {into};
  require_untied(working, changes);
  const std::vector<std::string> all = working.parameters();
  if (!changes.contains(into) && std::find(all.begin(), all.end(), into) != all.end()) {
    fail(Errc::mismatch, "there is another '{}' already", into);
  }
  require_state_follows(working, changes);
  std::map<std::string, std::size_t> firsts;  // by what they are called then: position in `kept`
  std::map<std::string, std::size_t> counts;
  std::vector<Item> kept;
  for (Item& item : working.items) {
    const auto role = role_of(item.entry.name);
    if (!role || !changes.contains(role->parameter)) {
      kept.push_back(std::move(item));
      continue;
    }
    const std::string name = role->name_for(into);
    ++counts[name];
    const auto [first, is_new] = firsts.try_emplace(name, kept.size());
    if (!is_new) {
      const Item& other = kept[first->second];
      if (other.entry.dtype != item.entry.dtype || other.entry.shape != item.entry.shape ||
          other.cast != item.cast || !working.bytes.same(other.entry, item.entry)) {
        fail(Errc::mismatch, "'{}' and another of the tensors that are to become '{}' differ",
             item.entry.name, name);
      }
      continue;
    }
    item.entry.name = name;
    kept.push_back(std::move(item));
  }
  for (const auto& [name, count] : counts) {
    if (count != names.size()) {
      fail(Errc::mismatch, "of the {} that are to become '{}', only {} are there", names.size(),
           name, count);
    }
  }
  working.items = std::move(kept);
  follow_names(working, changes);
  for (const std::string& name : names) add_example(outcome, fmt::format("{} -> {}", name, into));
  outcome.undo.push_back({{"type", "copy"}, {"name", into}, {"into", names}});
  return outcome;
}

void copy_to(Working& working, const std::string& name, const std::vector<std::string>& copies) {
  NameChanges changes;
  changes[name] = copies;
  require_state_follows(working, changes);
  std::vector<Item> items;
  std::set<std::string> others;
  bool found = false;
  for (Item& item : working.items) {
    const auto role = role_of(item.entry.name);
    if (!role || role->parameter != name) {
      others.insert(item.entry.name);
      items.push_back(std::move(item));
      continue;
    }
    found = true;
    for (const std::string& copy : copies) {
      items.push_back(item);
      items.back().entry.name = role->name_for(copy);
    }
  }
  working.items = std::move(items);
  if (!found) fail(Errc::corrupt, "there is no parameter '{}'", name);
  for (const std::string& copy : copies) {
    if (others.contains("model/" + copy)) fail(Errc::corrupt, "there is a '{}' already", copy);
  }
  follow_names(working, changes);
}

}  // namespace cairn::detail::migrations
