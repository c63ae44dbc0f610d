#include "pipeline/migrations/steps.hpp"

#include <array>
#include <set>
#include <utility>

#include "base/near_names.hpp"
#include "base/throw.hpp"
#include "manifest/dtype_names.hpp"
#include "pipeline/migrations/pattern.hpp"

namespace cairn::detail::migrations {
namespace {

using Apply = Outcome (*)(Working&, const Json&);
constexpr std::array<std::pair<std::string_view, Apply>, 18> kSteps{{
    {"rename", rename_step},
    {"rename_regex", rename_regex_step},
    {"wrap", wrap_step},
    {"unwrap", wrap_step},
    {"drop", drop_step},
    {"unite", unite_step},
    {"split", split_step},
    {"merge", merge_step},
    {"cast", cast_step},
    {"permute", permute_step},
    {"set", document_step},
    {"delete", document_step},
    {"rename_key", document_step},
    {"move", document_step},
    {"wrap_value", document_step},
    {"unwrap_value", document_step},
    {"rename_class", class_step},
    {"drop_class", class_step},
}};

void undo_casts(Working& working, std::map<std::string, std::string> dtypes) {
  for (Item& item : working.items) {
    const auto found = dtypes.find(item.entry.name);
    if (found == dtypes.end()) continue;
    const auto dtype = dtype_from_name(found->second);
    if (!dtype) fail(Errc::corrupt, "'{}' is no dtype", found->second);
    item.cast = *dtype == item.entry.dtype ? std::nullopt : dtype;
    dtypes.erase(found);
  }
  if (!dtypes.empty()) fail(Errc::corrupt, "there is no tensor '{}'", dtypes.begin()->first);
}

std::vector<Division> divisions_of(const Json& step) {
  std::vector<Division> divisions;
  for (const Json& each : step.at("all")) {
    divisions.push_back({each.at("whole").get<std::string>(),
                         each.at("parts").get<std::vector<std::string>>(),
                         each.at("sizes").get<std::vector<std::uint64_t>>()});
  }
  return divisions;
}

}  // namespace

bool is_optional(const Json& step) { return step.value("optional", false); }

void add_example(Outcome& outcome, std::string text) {
  constexpr std::size_t kMost = 3;
  ++outcome.changed;
  if (outcome.examples.size() < kMost) outcome.examples.push_back(std::move(text));
}

void nothing_matches(Working& working, const std::string& pattern) {
  const std::vector<std::string> names = working.parameters();
  const std::vector<std::string_view> views(names.begin(), names.end());
  const std::string near = list_near(pattern, views);
  fail(Errc::not_found, "no parameter is called '{}'{}; 'optional: true' lets that pass", pattern,
       near.empty() ? std::string() : fmt::format(" (there are {})", near));
}

std::vector<std::string> matched(Working& working, const Json& step, bool whole_names) {
  const std::vector<std::string> all = working.parameters();
  std::set<std::string> found;
  for (const Json& text : step.at("names")) {
    const NamePattern pattern(text.get<std::string>());
    bool any = false;
    for (const std::string& name : all) {
      if (!(whole_names ? pattern.match_whole(name) : pattern.match(name))) continue;
      found.insert(name);
      any = true;
    }
    if (!any && !is_optional(step)) nothing_matches(working, text.get<std::string>());
  }
  std::vector<std::string> names;
  for (const std::string& name : all) {
    if (found.contains(name)) names.push_back(name);
  }
  return names;
}

Outcome apply_step(Working& working, const Json& step) {
  const std::string& type = step.at("type").get_ref<const std::string&>();
  for (const auto& [name, apply] : kSteps) {
    if (name == type) return apply(working, step);
  }
  fail(Errc::internal, "'{}' is no step", type);
}

void undo_step(Working& working, const Json& step) {
  const std::string& type = step.at("type").get_ref<const std::string&>();
  using Names = std::vector<std::string>;
  if (type == "rename") {
    rename_to(working, step.at("names").get<std::map<std::string, std::string>>());
  } else if (type == "copy") {
    copy_to(working, step.at("name").get<std::string>(), step.at("into").get<Names>());
  } else if (type == "split") {
    std::vector<Division> divisions = divisions_of(step);
    split_all(working, divisions, step.at("dim").get<std::size_t>());
  } else if (type == "merge") {
    std::vector<Division> divisions = divisions_of(step);
    merge_all(working, divisions, step.at("dim").get<std::size_t>());
  } else if (type == "permute") {
    permute_all(working, step.at("names").get<Names>(), step.at("dim").get<std::size_t>(),
                step.at("order").get<std::vector<std::uint64_t>>());
  } else if (type == "cast") {
    undo_casts(working, step.at("dtypes").get<std::map<std::string, std::string>>());
  } else {
    fail(Errc::corrupt, "'{}' is no step back", type);
  }
}

}  // namespace cairn::detail::migrations
