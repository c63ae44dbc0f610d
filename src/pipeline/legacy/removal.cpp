#include "pipeline/legacy/removal.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "pipeline/legacy/references.hpp"

namespace cairn::detail::legacy {
namespace {

bool is_missing(const Value* value) {
  return value != nullptr && value->type == Value::Type::scalar && value->text == "\?\?\?";
}

/// A value that another file is to give stays, and so does its other half.
bool waits_for_value(const Reader& reader, const LegacyKey& key) {
  if (is_missing(reader.find(key.path))) return true;
  const std::string trigger = parent_of(key.path);
  return trigger.starts_with("diagnostics.checkpoint.") &&
         (is_missing(reader.find(trigger + ".save_frequency")) ||
          is_missing(reader.find(trigger + ".num_models_saved")));
}

/// Where else the text of an entry counts: it is anchored there, or merged from there.
std::vector<std::string> other_uses(const Value& document, const Value& entry,
                                    std::string_view path) {
  std::vector<std::string> uses;
  visit_all(document, "", [&](const std::string& at, const Value& value) {
    if (value.key_at == entry.key_at && value.line == entry.line && at != path) uses.push_back(at);
  });
  std::erase_if(uses, [](const std::string& use) { return use.starts_with("x-"); });
  return uses;
}

/// Adds the key unless that changes what others mean.
void add(Reader& reader, const LegacyKey& key, Removal& removal) {
  const Value* value = reader.find(key.path);
  if (value == nullptr || waits_for_value(reader, key)) return;
  const bool says = says_something(key, value);
  const auto uses = other_uses(reader.document(), *value, key.path);
  if (uses.empty() && !value->shadows) {
    removal.keys[value->key_at] = key.path;
  } else if (says && value->shadows) {
    reader.error(
        "shadows-merged-key", {std::string(key.path)},
        "hides a value that '<<' brings, which would count without it: remove one of them");
  } else if (says) {
    reader.error(
        "shared-by-anchor", {std::string(key.path)},
        fmt::format("is also '{}', by an anchor: write it out where it is meant", uses.front()));
  }
}

/// What ${path} becomes when the key goes; empty: nothing can take its place.
std::string successor(Reader& reader, const Plan& plan, const std::string& path) {
  const Value* value = reader.find(path);
  if (value == nullptr || value->type != Value::Type::scalar) return "";
  const std::string text = reader.text(path);
  const auto same = [&](const Json& block, const char* key) {
    return block.is_object() && block.contains(key) && block[key] == text;
  };
  if (path.ends_with("warm_start") && same(plan.source, "path")) return "${checkpoint.source.path}";
  if (path.ends_with(".run_id") && same(plan.lineage, "resume_run_id")) {
    return "${checkpoint.lineage.resume_run_id}";
  }
  if (path.ends_with(".fork_run_id") && same(plan.lineage, "parent_run_id")) {
    return "${checkpoint.lineage.parent_run_id}";
  }
  if (plan.save.contains("root") && plan.save["root"] == text) return "${save.root}";
  return filled_in(reader.document(), value->text, parent_of(path));
}

/// The key among `keys` that is `path` or holds it; its offset, or none.
const std::pair<const std::size_t, std::string>* find_removed(const Removal& removal,
                                                              const std::string& path) {
  for (const auto& each : removal.keys) {
    if (path == each.second || path.starts_with(each.second + ".")) return &each;
  }
  return nullptr;
}

/// References from what stays to what goes.
class References {
 public:
  References(Reader& reader, Plan& plan, Removal& removal)
      : reader_(reader), plan_(plan), removal_(removal) {}

  void decide() {
    // A key that says nothing and is still asked for stays; others may refer to it then.
    visit_staying([&](const std::string& path, const Value& value, const Value&) {
      replace_references(value.text, parent_of(path), [&](const std::string& target) {
        const auto* removed = find_removed(removal_, target);
        if (removed != nullptr && !reader_.says(removed->second)) {
          removal_.keys.erase(removed->first);
        }
        return std::optional<std::string>();
      });
    });
    visit_staying([&](const std::string& path, const Value& value, const Value& entry) {
      replace_references(
          value.text, parent_of(path),
          [&](const std::string& target) -> std::optional<std::string> {
            if (find_removed(removal_, target) == nullptr) return std::nullopt;
            const std::string to = successor(reader_, plan_, target);
            if (!to.empty()) return to;
            reader_.error(
                "referenced-key", {target, path},
                fmt::format("is moved and has no place of its own, but '{}' refers to it", path));
            return std::nullopt;
          },
          [&](const std::string& from, const std::string& to) {
            removal_.rewrites.push_back({entry.key_at, entry.in_flow, from, to});
          });
    });
  }

 private:
  using Scalar =
      std::function<void(const std::string& path, const Value& value, const Value& entry)>;

  /// Every text that stays, with the entry that it is written in.
  void visit_staying(const Scalar& visit) { walk(reader_.document(), "", nullptr, visit); }

  void walk(const Value& value, const std::string& path, const Value* entry, const Scalar& visit) {
    if (value.type == Value::Type::scalar && entry != nullptr) visit(path, value, *entry);
    for (std::size_t i = 0; i < value.items.size(); ++i) {
      walk(value.items[i], fmt::format("{}.{}", path, i), entry, visit);
    }
    for (const auto& [key, child] : value.entries) {
      if (removal_.holds(child)) continue;
      walk(child, path.empty() ? key : path + "." + key, &child, visit);
    }
  }

  Reader& reader_;
  Plan& plan_;
  Removal& removal_;
};

/// Mappings of which nothing stays go as a whole.
void add_emptied(const Value& value, const std::string& path, Removal& removal) {
  for (const auto& [key, child] : value.entries) {
    const std::string inner = path.empty() ? key : path + "." + key;
    if (child.type != Value::Type::mapping || child.entries.empty()) continue;
    add_emptied(child, inner, removal);
    const bool emptied = std::all_of(child.entries.begin(), child.entries.end(),
                                     [&](const auto& each) { return removal.holds(each.second); });
    if (emptied) removal.keys[child.key_at] = inner;
  }
}

}  // namespace

void visit_all(const Value& value, const std::string& path, const Visit& visit) {
  for (std::size_t i = 0; i < value.items.size(); ++i) {
    visit_all(value.items[i], fmt::format("{}.{}", path, i), visit);
  }
  for (const auto& [key, child] : value.entries) {
    const std::string inner = path.empty() ? key : path + "." + key;
    visit(inner, child);
    visit_all(child, inner, visit);
  }
}

Removal decide_removal(Reader& reader, Plan& plan) {
  Removal removal;
  const Era era = plan.version.era;
  for (const LegacyKey& key : legacy_keys()) {
    if (key.first <= era && era <= key.last) add(reader, key, removal);
  }
  References(reader, plan, removal).decide();
  add_emptied(reader.document(), "", removal);
  return removal;
}

Value without(const Value& document, const Removal& removal) {
  Value left = document;
  left.entries.clear();
  left.items.clear();
  for (const Value& item : document.items) left.items.push_back(without(item, removal));
  for (const auto& [key, child] : document.entries) {
    if (removal.holds(child)) continue;
    Value kept = without(child, removal);
    std::function<void(Value&)> rewrite = [&](Value& value) {
      for (const Rewrite& each : removal.rewrites) {
        if (each.key_at != child.key_at) continue;
        for (std::size_t at = 0; (at = value.text.find(each.from, at)) != std::string::npos;) {
          value.text.replace(at, each.from.size(), each.to);
          at += each.to.size();
        }
      }
      for (Value& item : value.items) rewrite(item);
    };
    rewrite(kept);
    left.entries.emplace_back(key, std::move(kept));
  }
  return left;
}

}  // namespace cairn::detail::legacy
