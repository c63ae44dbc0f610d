#include "pipeline/migrations/history.hpp"

#include <algorithm>
#include <optional>
#include <set>

#include "base/json_text.hpp"
#include "base/throw.hpp"
#include "checkpoint/convert_documents.hpp"

namespace cairn::detail::migrations {
namespace {

/// In a file of PyTorch's it is below the key "cairn".
std::string text_of(const Manifest& manifest) {
  const auto found = manifest.documents.find(kHistory);
  if (found != manifest.documents.end()) return found->second;
  const auto travelling = travelling_in(manifest).documents;
  const auto packed = travelling.find(kHistory);
  return packed == travelling.end() ? std::string() : packed->second;
}

/// "a (1.0), b (1.1)".
template <class List>
std::string names_in(const List& list) {
  std::string text;
  for (const auto& migration : list) {
    text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", migration.name, migration.version);
  }
  return text.empty() ? "none" : text;
}

/// How many of a list of migrations `to` reaches: up to the one of that name, or all whose version
/// is not beyond it. Errors: usage.
template <class List>
std::size_t end_of(const List& list, const std::string& to) {
  std::size_t end = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (list[i].name == to) return i + 1;
  }
  const bool is_known = std::any_of(list.begin(), list.end(),
                                    [&](const auto& migration) { return migration.version == to; });
  const bool is_version = !to.empty() && to.find_first_not_of("0123456789.") == std::string::npos &&
                          to.front() != '.' && to.back() != '.';
  if (!is_known && !is_version) {
    fail(Errc::usage, "no migration here is called '{}', and it is no version; there are: {}", to,
         names_in(list));
  }
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (compare_versions(list[i].version, to) <= 0) end = i + 1;
  }
  return end;
}

/// Adds what makes `now`, at a place of a document, `old` again. It goes by keys alone and replaces
/// lists as a whole: those that tell a file of PyTorch's are made anew from the file, in its order.
void add_patch(const Json& now, const Json& old, const Json::json_pointer& at, Json& patch) {
  if (now == old) return;
  if (!now.is_object() || !old.is_object()) {
    patch.push_back({{"op", "replace"}, {"path", at.to_string()}, {"value", old}});
    return;
  }
  std::map<std::string_view, const Json*> olds;
  for (const auto& [key, value] : old.get_ref<const Json::object_t&>()) olds.emplace(key, &value);
  for (const auto& [key, value] : now.get_ref<const Json::object_t&>()) {
    const auto found = olds.find(key);
    if (found == olds.end()) {
      patch.push_back({{"op", "remove"}, {"path", (at / key).to_string()}});
    } else {
      add_patch(value, *found->second, at / key, patch);
      olds.erase(found);
    }
  }
  for (const auto& [key, value] : old.get_ref<const Json::object_t&>()) {
    if (!olds.contains(key)) continue;
    patch.push_back({{"op", "add"}, {"path", (at / key).to_string()}, {"value", value}});
  }
}

}  // namespace

std::vector<Applied> history_of(const Manifest& manifest) {
  std::vector<Applied> history;
  const std::string text = text_of(manifest);
  if (text.empty()) return history;
  try {
    const Json document = parse_ordered(text);
    if (document.at("format") != 1) {
      fail(Errc::unsupported, "'{}': the document '{}' has a form that this release does not know",
           manifest.path().string(), kHistory);
    }
    for (const Json& entry : document.at("history")) {
      history.push_back({entry.at("name").get<std::string>(),
                         entry.at("version").get<std::string>(),
                         entry.at("signature").get<std::string>(),
                         entry.at("when").get<std::string>(), entry.value("undo", Json())});
    }
  } catch (const nlohmann::json::exception& error) {
    fail(Errc::corrupt, "'{}': the document '{}' can't be understood ({})",
         manifest.path().string(), kHistory, error.what());
  }
  return history;
}

std::string history_text(const std::vector<Applied>& history) {
  Json list = Json::array();
  for (const Applied& applied : history) {
    Json entry{{"name", applied.name},
               {"version", applied.version},
               {"signature", applied.signature},
               {"when", applied.when}};
    if (!applied.undo.is_null()) entry["undo"] = applied.undo;
    list.push_back(std::move(entry));
  }
  return Json{{"format", 1}, {"history", std::move(list)}}.dump();
}

Missing missing_in(const std::vector<Applied>& history, const std::vector<Migration>& migrations,
                   const std::string& to, const std::string& file) {
  Missing missing;
  std::map<std::string, std::size_t> known;
  for (std::size_t i = 0; i < migrations.size(); ++i) known[migrations[i].name] = i;
  std::set<std::size_t> done;
  for (const Applied& applied : history) {
    const auto found = known.find(applied.name);
    if (found == known.end()) {
      fail(Errc::unsupported,
           "'{}' has the migration '{}' (version {}) behind it, which is not among the steps: use "
           "those of the release that wrote it, or take it back with --rollback",
           file, applied.name, applied.version);
    }
    if (migrations[found->second].signature != applied.signature) {
      missing.warnings.push_back(fmt::format(
          "'{}' was changed since it was applied to '{}': the file has what it did then",
          applied.name, file));
    }
    done.insert(found->second);
  }
  const std::size_t end = to.empty() ? migrations.size() : end_of(migrations, to);
  if (!to.empty() && !done.empty() && *done.rbegin() >= end) {
    fail(Errc::usage, "'{}' has '{}' behind it, which is beyond {}; --rollback takes it back", file,
         migrations[*done.rbegin()].name, to);
  }
  if (end == 0) {
    fail(Errc::usage, "no migration leads to '{}'; there are: {}", to, names_in(migrations));
  }
  for (std::size_t i = 0; i < end; ++i) {
    if (done.contains(i)) continue;
    if (migrations[i].is_final) {
      fail(Errc::unsupported,
           "'{}' can't be migrated beyond '{}', which begins a new compatibility group: {}", file,
           migrations[i].name,
           i == 0 ? "no release before it is known"
                  : fmt::format("the last version that can use it is {}; --to {} leads there",
                                migrations[i - 1].version, migrations[i - 1].name));
    }
    if (!done.empty() && i < *done.rbegin()) {
      missing.warnings.push_back(fmt::format("'{}' comes before '{}', which '{}' has already",
                                             migrations[i].name, migrations[*done.rbegin()].name,
                                             file));
    }
    missing.positions.push_back(i);
  }
  return missing;
}

std::size_t count_back(const std::vector<Applied>& history, const std::string& to,
                       const std::string& file) {
  if (history.empty()) fail(Errc::usage, "'{}' has no migration behind it", file);
  if (to.empty()) return 1;
  return history.size() - end_of(history, to);
}

Json way_back(const Documents& before, const Documents& after) {
  Json back = Json::object();
  for (const auto& [name, text] : after) {
    const auto found = before.find(name);
    if (found == before.end()) {
      back[name] = nullptr;
    } else if (found->second != text) {
      const std::string& old = found->second;
      const Json now = parse_ordered(text);
      Json patch = Json::array();
      add_patch(now, parse_ordered(old), Json::json_pointer(), patch);
      // A patch knows no order of keys, and spaces neither.
      const bool exact = patch.dump().size() < old.size() && now.patch(patch).dump() == old;
      back[name] = exact ? Json{{"patch", patch}} : Json{{"text", old}};
    }
  }
  for (const auto& [name, text] : before) {
    if (!after.contains(name)) back[name] = {{"text", text}};
  }
  return back;
}

}  // namespace cairn::detail::migrations
