#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/legacy_config.hpp"
#include "pipeline/legacy/keys.hpp"

namespace cairn::detail::legacy {

using Json = nlohmann::ordered_json;

/// The release that a file was written for, as far as it is known.
struct Version {
  Era era = Era::e2;
  int minor = -1;     ///< of 0.x; negative: only the era is known
  bool told = false;  ///< by the user, not deduced
};

std::string_view to_string(Era era);
/// "0.7", "0.15.1", "v0.7" or "E1". Errors: usage.
Version parse_version(const std::string& text);

/// What a migration will write, and what it has to say. `null` members are not written.
struct Plan {
  Version version;
  // The entries of `checkpoint`, `model_modifier.modifiers` and `save`.
  Json source;
  Json lineage;
  Json loading;
  Json modifiers;
  Json save = Json::object();
  /// Why, by the new path ("checkpoint.source", "save.root"): lines above it.
  std::map<std::string, std::vector<std::string>> comments;
  /// What is left out, and why: lines above everything.
  std::vector<std::string> left_out;

  bool reset_progress = false;
  std::string source_path;     ///< the file that is read, as text; empty: the file does not tell
  std::optional<Json> freeze;  ///< the names; nothing: the file does not say

  std::vector<MovedKey> moved;
  std::vector<MigrationNote> warnings;
  std::vector<MigrationNote> errors;

  /// What the report says of the new blocks.
  Json summary() const;
};

/// The old keys of a document, and where to say what is wrong with them.
class Reader {
 public:
  Reader(const Value& document, Plan& plan) : document_(document), plan_(plan) {}

  const Value& document() const { return document_; }
  const Value* find(std::string_view path) const { return find_path(document_, path); }
  /// Whether the key is there and says something.
  bool says(std::string_view path) const;
  int line_of(std::string_view path) const;
  /// Whether the document has blocks of cairn's.
  bool has_blocks() const;

  /// The text of a key as it must be written elsewhere: relative references made absolute, those to
  /// old keys filled in. Empty: null, empty or absent. Reports a value of another type.
  std::string text(std::string_view path);
  /// The same with everything filled in that the document says.
  std::string resolved(std::string_view path);
  /// Null is false. Reports what is no flag.
  bool flag(std::string_view path);

  void move(std::string_view key, std::string_view to, std::string why);
  void warn(std::string_view code, std::vector<std::string> about, std::string message);
  void error(std::string_view code, std::vector<std::string> about, std::string message);

 private:
  MigrationNote note(std::string_view code, std::vector<std::string> about,
                     std::string message) const;

  const Value& document_;
  Plan& plan_;
};

/// `dir`/`file`, as Python joins them.
std::string join(const std::string& dir, const std::string& file);

// Each fills in its part of the plan.
void plan_load(Reader& reader, Plan& plan);     ///< training.run_id, warm_start, ... (load.cpp)
void plan_classes(Reader& reader, Plan& plan);  ///< training.checkpoint of E3 (classes.cpp)
void plan_modifiers(Reader& reader, Plan& plan);
void plan_save(Reader& reader, Plan& plan);

/// The era of a document, from its keys and from what the user says of its version. Reports what
/// contradicts it.
Version version_of(Reader& reader, const std::optional<Version>& from);

}  // namespace cairn::detail::legacy
