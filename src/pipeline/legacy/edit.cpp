#include "pipeline/legacy/edit.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "base/throw.hpp"
#include "cairn/version.hpp"
#include "pipeline/legacy/removal.hpp"
#include "pipeline/legacy/render.hpp"
#include "pipeline/legacy/text.hpp"

namespace cairn::detail::legacy {
namespace {

/// The plan as the document's new blocks.
Json blocks_of(const Plan& plan) {
  Json blocks = Json::object();
  if (!plan.source.is_null()) blocks["checkpoint"]["source"] = plan.source;
  if (!plan.lineage.is_null()) blocks["checkpoint"]["lineage"] = plan.lineage;
  if (!plan.loading.is_null()) blocks["checkpoint"]["loading"] = plan.loading;
  if (!plan.modifiers.is_null()) blocks["model_modifier"]["modifiers"] = plan.modifiers;
  if (!plan.save.empty()) blocks["save"] = plan.save;
  return blocks;
}

bool is_empty(const Value& value) {
  return value.type == Value::Type::null ||
         (value.type == Value::Type::mapping && value.entries.empty());
}

/// What an existing block says about the same as a new one. A run's directory and that of all runs
/// are one thing, and so are the two ways to count steps.
std::string conflicting_key(const Value& existing, const std::string& name, const Json& block) {
  if (existing.type != Value::Type::mapping) return name;
  for (const auto& [key, value] : existing.entries) {
    const bool same = name != "save" || block.contains(key) ||
                      (key == "dir" && block.contains("root")) ||
                      (key == "every_n_steps" && block.contains("triggers"));
    if (same && !is_empty(value)) return name + "." + key;
  }
  return "";
}

/// The old key that a block comes from, for errors.
std::string old_key_of(const Plan& plan, const std::string& block) {
  for (const MovedKey& moved : plan.moved) {
    if (moved.to.starts_with(block)) return moved.key;
  }
  return block;
}

void refuse_conflicts(const Value& document, const Json& blocks, Plan& plan, Reader& reader) {
  for (const auto& [name, block] : blocks.items()) {
    const Value* existing = document.find(name);
    if (existing == nullptr || is_empty(*existing)) continue;
    const std::string key = conflicting_key(*existing, name, block);
    if (key.empty()) continue;
    const std::string old = old_key_of(plan, name);
    reader.error("old-new-conflict", {old, key},
                 fmt::format("and '{}' (line {}) speak about the same: remove one of them", key,
                             reader.line_of(key)));
  }
}

bool equal(const Value& a, const Value& b) {
  if (a.type != b.type || a.text != b.text || a.items.size() != b.items.size() ||
      a.entries.size() != b.entries.size()) {
    return false;
  }
  return std::equal(a.items.begin(), a.items.end(), b.items.begin(), equal) &&
         std::all_of(a.entries.begin(), a.entries.end(), [&](const auto& entry) {
           const Value* other = b.find(entry.first);
           return other != nullptr && equal(entry.second, *other);
         });
}

class Editor {
 public:
  Editor(const std::string& text, const Value& document, const Plan& plan, const Removal& removal)
      : text_(text), document_(document), plan_(plan), removal_(removal) {}

  std::string run(const Json& blocks) {
    Json fresh = Json::object();
    for (const auto& [name, block] : blocks.items()) {
      const Value* existing = document_.find(name);
      if (existing == nullptr) {
        fresh[name] = block;
      } else if (is_empty(*existing) || removal_.holds(*existing)) {
        if (!removal_.holds(*existing)) remove(existing->key_at, existing->in_flow, "");
        fresh[name] = block;
      } else {
        extend(*existing, name, block);
      }
    }
    for (const Rewrite& each : removal_.rewrites) {
      edits_[each.key_at].push_back(
          [this, each] { replace_in_entry(text_, each.key_at, each.in_flow, each.from, each.to); });
    }
    plan_removals();
    plan_insertion(fresh);
    // From the end to the beginning: offsets before an edit stay right.
    for (auto at = edits_.rbegin(); at != edits_.rend(); ++at) {
      for (const auto& edit : at->second) edit();
    }
    return text_;
  }

 private:
  void remove(std::size_t key_at, bool in_flow, const std::string& label) {
    first_ = std::min(first_, key_at);
    edits_[key_at].push_back(
        [this, key_at, in_flow, label] { remove_entry(text_, key_at, in_flow, label); });
  }

  /// An entry goes with all that is in it: only the outermost are edited.
  void plan_removals() {
    visit_outermost(document_, [&](const std::string& key, const Value& entry) {
      if (edits_.count(entry.key_at) != 0) return;  // anchored, and met before
      const auto moved = std::find_if(
          plan_.moved.begin(), plan_.moved.end(),
          [&](const MovedKey& each) { return each.key == removal_.keys.at(entry.key_at); });
      const bool known = moved != plan_.moved.end();
      remove(entry.key_at, entry.in_flow,
             !known              ? ""
             : moved->to.empty() ? fmt::format("# {} was left out: ", key)
                                 : fmt::format("# {} is now {}: ", key, moved->to));
    });
  }

  void visit_outermost(const Value& value, const Visit& visit) {
    for (const Value& item : value.items) visit_outermost(item, visit);
    for (const auto& [key, child] : value.entries) {
      if (removal_.holds(child)) {
        visit(key, child);
      } else {
        visit_outermost(child, visit);
      }
    }
  }

  /// New entries in a block that is there: before its first one.
  void extend(const Value& existing, const std::string& name, const Json& block) {
    const auto first = std::min_element(
        existing.entries.begin(), existing.entries.end(),
        [&](const auto& a, const auto& b) { return a.second.key_at < b.second.key_at; });
    const std::size_t at = first->second.key_at;
    if (at < existing.key_at) fail(Errc::usage, "'{}' is an alias: write it out", name);
    if (first->second.in_flow) {
      edits_[at].push_back([this, at, block] { text_.insert(at, flow_entries(block) + ", "); });
      return;
    }
    edits_[at].push_back([this, at, name, block] {
      const std::size_t line = line_begin(text_, at);
      text_.insert(line, with_line_ends(block_lines(block, plan_, name, at - line)));
    });
  }

  /// The new blocks stand before the first section that anything moves out of, above its comments.
  void plan_insertion(const Json& fresh) {
    if (fresh.empty() && plan_.left_out.empty()) return;
    std::size_t at = 0;
    bool in_flow = false;
    bool found = false;
    for (const auto& entry : document_.entries) {
      const std::size_t key_at = entry.second.key_at;
      if (key_at > first_ || (found && key_at < at)) continue;
      at = key_at;
      in_flow = entry.second.in_flow;
      found = true;
    }
    if (in_flow) at = document_.entries.front().second.key_at;
    // Behind the edits of that place, which begin at the key itself.
    edits_[at].push_back([this, at, in_flow, fresh] { insert(at, in_flow, fresh); });
  }

  void insert(std::size_t at, bool in_flow, const Json& fresh) {
    if (in_flow) {
      std::string entries;
      for (const auto& [name, block] : fresh.items()) {
        entries += fmt::format("{}{}: {}", entries.empty() ? "" : ", ", Json(name).dump(),
                               block.dump(-1, ' ', false, Json::error_handler_t::replace));
      }
      const std::size_t next = text_.find_first_not_of(" \t\r\n", at);
      const bool last = next != std::string::npos && text_[next] == '}';
      if (!entries.empty()) text_.insert(at, entries + (last ? "" : ", "));
      return;
    }
    std::size_t line = line_begin(text_, at);
    const std::size_t indent = column_;
    while (line > 0) {
      const std::size_t above = line_begin(text_, line - 1);
      const std::size_t first = text_.find_first_not_of(" \t", above);
      if (first >= line || text_[first] != '#') break;
      line = above;
    }
    std::string lines;
    if (!fresh.empty()) {
      lines += comment_lines({fmt::format("Migrated from the legacy schema {} by cairn {}.",
                                          to_string(plan_.version.era), CAIRN_VERSION_STRING)},
                             indent);
    }
    lines += comment_lines(plan_.left_out, indent) + block_lines(fresh, plan_, "", indent);
    text_.insert(line, with_line_ends(lines + (line < text_.size() ? "\n" : "")));
  }

  std::string with_line_ends(const std::string& lines) const {
    if (!crlf_) return lines;
    std::string text;
    for (const char c : lines) text += c == '\n' ? "\r\n" : std::string(1, c);
    return text;
  }

  std::string text_;
  const Value& document_;
  const Plan& plan_;
  const Removal& removal_;
  const bool crlf_ = text_.find("\r\n") != std::string::npos;
  const std::size_t column_ = document_.entries.empty()
                                  ? 0
                                  : document_.entries.front().second.key_at -
                                        line_begin(text_, document_.entries.front().second.key_at);
  std::size_t first_ = std::string::npos;  ///< the first key that goes
  std::map<std::size_t, std::vector<std::function<void()>>> edits_;
};

/// The document as it must come out, from the tree and not from the text.
Value expected_of(const Value& document, const Removal& removal, const Json& blocks,
                  const Plan& plan) {
  Value expected = without(document, removal);
  expected.type = Value::Type::mapping;
  Value added = parse_yaml(block_lines(blocks, plan, "", 0), "the new blocks");
  for (auto& [name, block] : added.entries) {
    Value* existing = expected.find(name);
    if (existing == nullptr) {
      expected.entries.emplace_back(name, std::move(block));
    } else if (is_empty(*existing)) {
      *existing = std::move(block);
    } else {
      for (auto& entry : block.entries) {
        if (Value* old = existing->find(entry.first)) {
          *old = std::move(entry.second);
        } else {
          existing->entries.push_back(std::move(entry));
        }
      }
    }
  }
  return expected;
}

}  // namespace

std::string edited(const std::string& text, const Value& document, Plan& plan,
                   const std::string& origin) {
  Reader reader(document, plan);
  const Json blocks = blocks_of(plan);
  refuse_conflicts(document, blocks, plan, reader);
  if (!plan.errors.empty()) return text;
  const Removal removal = decide_removal(reader, plan);
  if (!plan.errors.empty()) return text;
  try {
    std::string result = Editor(text, document, plan, removal).run(blocks);
    Value made = parse_yaml(result, origin);
    made.type = Value::Type::mapping;  // nothing at all is fine, too
    if (!equal(made, expected_of(document, removal, blocks, plan))) {
      fail(Errc::usage, "the text that came out would mean something else");
    }
    return result;
  } catch (const Error& error) {
    reader.error("cannot-edit", {},
                 fmt::format("the file cannot be edited in place ({}): write the keys that move in "
                             "the usual style, on lines of their own",
                             error.what()));
    return text;
  }
}

}  // namespace cairn::detail::legacy
