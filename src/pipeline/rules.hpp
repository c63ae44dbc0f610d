#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipeline/value.hpp"

namespace cairn::detail {

/// The keys of the configuration are data: from these tables come the checks, the texts of errors,
/// the JSON schema and what `cairn config show` prints. A new key is one line in keys.cpp, and one
/// that takes its value in config.cpp.

struct BlockRule;

enum class Kind {
  text,
  any_text,    ///< a text that may be empty
  flag,        ///< true or false
  count,       ///< an integer from 0
  integer,     ///< an integer between `least` and `most`
  number,      ///< between `least` and `most`
  word,        ///< one of `words`
  texts,       ///< a list of texts that is not empty
  pairs,       ///< a mapping of names of the user's own to texts
  block,       ///< a mapping, by `block`
  blocks,      ///< a list of such
  flag_block,  ///< true, false or such a mapping
};

struct Key {
  std::string_view name;
  Kind kind = Kind::text;
  std::string_view what;           ///< "a number of steps", as errors say it
  std::string_view help;           ///< what the schema says about it
  std::string_view fallback = {};  ///< the value where it is absent, as YAML; empty: none
  bool required = false;
  std::span<const std::string_view> words = {};
  const BlockRule* block = nullptr;
  double least = 0;
  double most = 1e18;
};

/// Keys that a block has when its `type` is `type`.
struct TypeRule {
  std::string_view type;
  std::span<const Key> keys;
  std::span<const Key> more = {};  ///< keys that several types share
};

struct BlockRule {
  std::span<const Key> keys;
  std::span<const TypeRule> types = {};
  std::string_view type_fallback = {};  ///< the type where none is given; empty: it is required
  std::span<const Key> open = {};  ///< what types have that programs register, besides their own
  /// Types that the program registered; null: it can't.
  std::vector<std::string> (*registered)() = nullptr;
  bool notes = false;     ///< keys that begin with "x-" are the user's own
  bool sections = false;  ///< keys that resemble none of `keys` are other programs'
};

/// The whole document (keys.cpp), and its blocks checkpoint.source (keys_source.cpp),
/// checkpoint.loading (keys_loading.cpp) and save.preemption (keys_trainer.cpp). kModifierRule is
/// an item of model_modifier.modifiers.
extern const BlockRule kDocument;
extern const BlockRule kModifierRule;
extern const BlockRule kSourceRule;
extern const BlockRule kLoadingRule;
extern const BlockRule kPreemptionRule;
inline constexpr double kMostTimeoutSeconds = 1e7;

/// Checks `value` against the rule: unknown keys, types, words, ranges, what is required. Null is
/// absent. Types that only another program may have registered are errors, or, where `strangers`
/// is given, added to it as "file:line: 'key' ...". Errors: usage.
void check_block(const Value& value, const BlockRule& rule, const Place& place,
                 std::vector<std::string>* strangers = nullptr);

/// What holds after `value` was read, with what is absent filled in. Secrets are masked.
nlohmann::ordered_json resolved_block(const Value* value, const BlockRule& rule);

/// The JSON schema of the document (draft 2020-12).
nlohmann::ordered_json json_schema();

/// The `type` of a block that has several. Local.
std::string_view type_of(const Value& value, const BlockRule& rule);
/// The rule of that type; null when a program has registered it.
const TypeRule* find_type(const BlockRule& rule, std::string_view type);

/// Whether a key of the document is another program's: neither a block, nor one from inside a
/// block, nor like the name of either. Local.
bool is_foreign_section(std::string_view name);
/// The blocks inside those of the document, by name, with the dotted path of each. Local.
std::vector<std::pair<std::string, std::string>> nested_blocks();

/// An integer from 0, "60_000" included; any integer; a finite number. Nothing for any other text.
bool parse_count(std::string_view text, std::uint64_t& count);
bool parse_integer(std::string_view text, std::int64_t& integer);
bool parse_number(std::string_view text, double& number);
/// YAML's spellings of true and false.
bool parse_flag(std::string_view text, bool& flag);

}  // namespace cairn::detail
