#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cairn/config.hpp"
#include "pipeline/rules.hpp"
#include "pipeline/value.hpp"

namespace cairn::detail {

/// A checked mapping: what is there has the type that its key says.
class Block {
 public:
  Block(const Value* value, Place place) : value_(value), place_(std::move(place)) {}

  explicit operator bool() const { return value_ != nullptr; }
  const Place& place() const { return place_; }

  const Value* find(std::string_view key) const {
    const Value* found = value_ == nullptr ? nullptr : value_->find(key);
    return found == nullptr || found->type == Value::Type::null ? nullptr : found;
  }
  Block block(std::string_view key) const {
    const Value* found = find(key);
    return {found != nullptr && found->type == Value::Type::mapping ? found : nullptr,
            place_.at(key)};
  }
  std::vector<Block> blocks(std::string_view key) const {
    std::vector<Block> blocks;
    const Value* found = find(key);
    for (std::size_t i = 0; found != nullptr && i < found->items.size(); ++i) {
      blocks.emplace_back(&found->items[i], place_.at(key).at(i));
    }
    return blocks;
  }
  const std::vector<std::pair<std::string, Value>>& entries() const { return value_->entries; }

  /// Each takes the value if it is there and leaves `out` as it is otherwise.
  void take(std::string_view key, std::string& out) const {
    if (const Value* found = find(key)) out = found->text;
  }
  void take(std::string_view key, std::filesystem::path& out) const {
    if (const Value* found = find(key)) out = found->text;
  }
  void take(std::string_view key, bool& out) const {
    if (const Value* found = find(key)) parse_flag(found->text, out);
  }
  void take(std::string_view key, double& out) const {
    if (const Value* found = find(key)) parse_number(found->text, out);
  }
  void take(std::string_view key, std::uint64_t& out) const {
    if (const Value* found = find(key)) parse_count(found->text, out);
  }
  void take(std::string_view key, std::int64_t& out) const {
    if (const Value* found = find(key)) parse_integer(found->text, out);
  }
  void take(std::string_view key, int& out) const { take_count(key, out); }
  void take(std::string_view key, unsigned& out) const { take_count(key, out); }
  void take(std::string_view key, std::chrono::milliseconds& out) const {
    if (find(key) == nullptr) return;
    double seconds = 0;
    take(key, seconds);
    out = std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
  }
  void take(std::string_view key, std::vector<std::string>& out) const {
    const Value* found = find(key);
    for (std::size_t i = 0; found != nullptr && i < found->items.size(); ++i) {
      out.push_back(found->items[i].text);
    }
  }
  void take(std::string_view key, std::map<std::string, std::string>& out) const {
    const Value* found = find(key);
    for (std::size_t i = 0; found != nullptr && i < found->entries.size(); ++i) {
      out[found->entries[i].first] = found->entries[i].second.text;
    }
  }
  /// The value of one of the words that the key has.
  template <class T, std::size_t N>
  void take(std::string_view key, T& out,
            const std::array<std::pair<std::string_view, T>, N>& words) const {
    const Value* found = find(key);
    for (const auto& [word, value] : words) {
      if (found != nullptr && found->text == word) out = value;
    }
  }

 private:
  template <class T>
  void take_count(std::string_view key, T& out) const {
    std::uint64_t count = static_cast<std::uint64_t>(out);
    if (find(key) != nullptr) take(key, count);
    out = static_cast<T>(count);
  }

  const Value* value_;
  Place place_;
};

/// The keys of a block of a registered type.
std::map<std::string, std::string> texts_of(const Block& block);
/// Errors: usage (what a rule cannot say: a digest, the form of a URL).
Source source_of(const Block& block);
/// Errors: usage.
void take_save(const Block& block, SaveConfig& save);
/// What triggers say of when to save and what stays, and what `enabled` switches off.
void settle_triggers(SaveConfig& save);

}  // namespace cairn::detail
