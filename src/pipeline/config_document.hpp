#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/config.hpp"
#include "cairn/export.hpp"
#include "pipeline/value.hpp"

namespace cairn::detail {

/// The document that config_of makes `config` of, whoever filled it in. Local.
Value document_of(const Config& config);

/// Holds settings that a program filled in against the rules for files. Local. Errors: usage, as
/// for files, with `origin` in the place of the file.
CAIRN_EXPORT void check(const Config& config, const std::string& origin);

/// What holds, with defaults filled in and secrets masked. Local.
nlohmann::ordered_json config_json(const Config& config);

/// A part of the configuration, by its hash.
struct ConfigPart {
  std::string_view subject;  ///< "checkpoint.loading"; lives as long as the program
  std::uint64_t hash = 0;
};

/// What of `config` all ranks must have alike. Local.
CAIRN_EXPORT std::vector<ConfigPart> parts_of(const Config& config);

}  // namespace cairn::detail
