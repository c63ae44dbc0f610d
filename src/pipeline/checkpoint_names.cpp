#include "pipeline/checkpoint_names.hpp"

#include <fmt/format.h>

#include "base/bounded_regex.hpp"
#include "base/throw.hpp"
#include "cairn/tensor_view.hpp"

namespace cairn::detail {

struct CheckpointNames::Rule {
  RenameRule rule;
  std::optional<BoundedRegex> regex;

  std::string apply(const std::string& dotted) const {
    if (regex) return regex->replaced_in(dotted, rule.to);
    if (!dotted.starts_with(rule.from)) return dotted;
    return rule.to + dotted.substr(rule.from.size());
  }
};

namespace {

constexpr std::string_view kModel = "model/";
constexpr std::string_view kOptimizer = "optimizer/";
constexpr std::string_view kBeside = "beside/";  // no name of a model begins like this

/// The part of a tensor's name that rules act on: where it starts, and its length.
std::optional<std::pair<std::size_t, std::size_t>> dotted_part(std::string_view name) {
  if (name.starts_with(kModel)) return std::pair(kModel.size(), name.size() - kModel.size());
  if (!name.starts_with(kOptimizer)) return std::nullopt;
  const std::size_t slot = name.rfind('/');
  if (slot < kOptimizer.size()) return std::nullopt;
  return std::pair(kOptimizer.size(), slot - kOptimizer.size());
}

}  // namespace

CheckpointNames::CheckpointNames(const Manifest& manifest, const std::vector<RenameRule>& rules,
                                 std::string wrapper)
    : manifest_(manifest), wrapper_(std::move(wrapper)), rule_used_(rules.size(), false) {
  if (rules.empty() && wrapper_.empty()) {
    by_name_.emplace(manifest.tensors);
    return;
  }
  auto compiled = std::make_shared<std::vector<Rule>>();
  for (const RenameRule& rule : rules) {
    compiled->push_back({rule, {}});
    if (rule.regex) compiled->back().regex.emplace(rule.from, "the regex of a rename rule");
  }
  rules_ = compiled;
  names_.reserve(manifest.tensors.size());
  for (std::size_t t = 0; t < manifest.tensors.size(); ++t) {
    const std::string_view name = manifest.tensors.head(t).name;
    names_.emplace_back(name);
    const auto part = dotted_part(name);
    if (!part) continue;
    std::string dotted = unescape_component(name.substr(part->first, part->second));
    if (dotted.starts_with(wrapper_)) {
      dotted.erase(0, wrapper_.size());
    } else if (name.starts_with(kModel)) {
      names_.back().insert(0, kBeside);
      continue;
    }
    for (std::size_t r = 0; r < rules_->size(); ++r) {
      std::string next = (*rules_)[r].apply(dotted);
      rule_used_[r] = rule_used_[r] || next != dotted;
      dotted = std::move(next);
    }
    names_.back().replace(part->first, part->second, escape_component(dotted));
  }
  by_name_.emplace(std::vector<std::string_view>(names_.begin(), names_.end()));
  for (std::size_t t = 0; t < names_.size(); ++t) {
    const std::size_t first = by_name_->find(names_[t]).value();
    if (first == t) continue;
    fail(Errc::mismatch,
         "the rename rules give '{}' and '{}' of '{}' the same name, '{}'; make them more precise",
         manifest.tensors.head(first).name, manifest.tensors.head(t).name, manifest.path().string(),
         names_[t]);
  }
}

std::string_view CheckpointNames::name(std::size_t position) const {
  return names_.empty() ? manifest_.tensors.head(position).name : names_[position];
}

bool CheckpointNames::is_beside(std::size_t position) const {
  return !wrapper_.empty() && names_[position].starts_with(kBeside);
}

std::string CheckpointNames::renamed(const std::string& dotted) const {
  std::string name = dotted.starts_with(wrapper_) ? dotted.substr(wrapper_.size()) : dotted;
  for (std::size_t r = 0; rules_ && r < rules_->size(); ++r) name = (*rules_)[r].apply(name);
  return name;
}

std::vector<std::string> CheckpointNames::idle_rules() const {
  std::vector<std::string> idle;
  for (std::size_t r = 0; r < rule_used_.size(); ++r) {
    if (!rule_used_[r]) idle.push_back((*rules_)[r].rule.from);
  }
  return idle;
}

}  // namespace cairn::detail
