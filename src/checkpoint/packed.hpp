#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "cairn/manifest.hpp"

namespace cairn::detail {

// What of a container safetensors have no place for travels in their metadata, under keys of
// cairn's own.

inline constexpr std::string_view kSafetensorsMetadata = "__metadata__";
inline constexpr std::string_view kPackedMark = "cairn";
inline constexpr std::string_view kPackedStep = "cairn.step";
inline constexpr std::string_view kPackedDocument = "cairn.document.";

/// The metadata of safetensors as an object of texts; empty where there is none. Local.
nlohmann::ordered_json metadata_of(const Manifest& source);

/// Whether cairn wrote the safetensors, and names in them may be a container's paths. Local.
bool is_marked(const Manifest& source);

struct Unpacked {
  std::optional<std::uint64_t> step;
  std::map<std::string, std::string> documents;
  /// The metadata that are the user's own; an object of texts.
  nlohmann::ordered_json rest = nlohmann::ordered_json::object();
};

/// What cairn packed into the metadata of marked safetensors. Local.
Unpacked unpack(const Manifest& source);

}  // namespace cairn::detail
