#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cairn/config.hpp"
#include "cairn/export.hpp"
#include "pipeline/value.hpp"

namespace cairn::detail {

// All Local.

/// The text of a configuration file. Errors: not_found, usage, unsafe (larger than any
/// configuration), io.
std::string read_configuration(const std::filesystem::path& path);

/// A configuration that was read, its interpolations replaced, and checked (check_block). Errors:
/// usage, unsafe.
Value checked_document(const std::string& yaml, const std::string& origin,
                       std::vector<std::string>* strangers = nullptr);

/// Takes the values of a checked document. Errors: usage (what only a value can be wrong in: a
/// digest, a regular expression).
Config config_of(const Value& document, const std::string& origin);

/// Fills in what follows from other settings: `~` and save.root in directories, when triggers save
/// and what they keep, what save.enabled switches off. Twice is as once. Errors: usage (another
/// user's home).
CAIRN_EXPORT void settle(Config& config);

/// What a settled configuration says and nothing acts on, each as a sentence that warns.
CAIRN_EXPORT std::vector<std::string> idle_keys(const SaveConfig& save);

/// `json` as YAML, in block style.
std::string to_yaml(const nlohmann::ordered_json& json);

}  // namespace cairn::detail
