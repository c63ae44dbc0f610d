#include "formats/torch/anemoi.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "base/json_text.hpp"
#include "base/throw.hpp"
#include "formats/torch/numpy.hpp"
#include "formats/torch/values.hpp"

namespace cairn::detail::torch {
namespace {

constexpr std::uint64_t kMostBytes = 32 << 20;
constexpr std::size_t kMostDepth = 200;
constexpr std::size_t kMostValues = 500'000;  // each takes up to 200 bytes, however short its text

const ZipMember* find_member(const Archive& archive) {
  const ZipMember* found = nullptr;
  for (const ZipMember& member : archive.table().members()) {
    const std::string_view name = member.name;
    const std::size_t slash = name.rfind('/');
    if (slash == std::string_view::npos) continue;
    const std::string_view base = name.substr(slash + 1);
    if (base != "anemoi.json" && base != "ai-models.json") continue;
    if (found != nullptr) {
      fail(Errc::corrupt, "there are two, '{}' and '{}'", found->name, member.name);
    }
    found = &member;
  }
  return found;
}

/// Python writes NaN and Infinity, which JSON has not: they become null. Errors: corrupt.
std::string plain_json(std::string_view text) {
  std::string plain;
  plain.reserve(text.size());
  bool quoted = false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (quoted) {
      plain += c;
      if (c == '\\' && at + 1 < text.size()) plain += text[++at];
      quoted = c != '"';
      continue;
    }
    quoted = c == '"';
    std::optional<std::size_t> word;
    for (const std::string_view name : {"NaN", "-Infinity", "Infinity"}) {
      if (!word && text.substr(at).starts_with(name)) word = name.size();
    }
    if (word) {
      plain += "null";
      at += *word - 1;
    } else {
      plain += c;
    }
  }
  return plain;
}

/// The text of the metadata, which fits the memory when it is parsed. Errors: corrupt, unsafe.
std::string text_of(const File& file, const Archive& archive, const ZipMember& member) {
  const std::vector<std::byte> bytes = archive.table().read_member(file, member, kMostBytes);
  const std::string_view raw(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (is_deeper(raw, kMostDepth)) fail(Errc::unsafe, "it is nested deeper than {}", kMostDepth);
  // Every value begins the text, or stands behind one of these.
  const auto values = std::count_if(raw.begin(), raw.end(),
                                    [](char c) { return c == ',' || c == '[' || c == ':'; });
  if (static_cast<std::size_t>(values) > kMostValues) {
    fail(Errc::unsafe, "'{}' holds more than {} values", member.name, kMostValues);
  }
  return plain_json(raw);
}

/// {path, shape, dtype} of one array. Errors: corrupt, unsupported.
Json array_of(const Archive& archive, const std::string& name, const nlohmann::json& entry) {
  const std::string path = entry.value("path", "");
  const ZipMember* member = archive.table().find(path);
  if (member == nullptr) fail(Errc::corrupt, "array '{}' is not in the archive", name);
  const auto dtype = dtype_of_numpy(entry.value("dtype", ""));
  if (!dtype || member->method != 0) {
    fail(Errc::unsupported, "array '{}' has a type or compression that cairn cannot read", name);
  }
  std::uint64_t bytes = item_bytes(*dtype);
  for (const nlohmann::json& count : entry.at("shape")) {
    const bool natural = count.is_number_unsigned();
    if (!natural || __builtin_mul_overflow(bytes, count.get<std::uint64_t>(), &bytes)) {
      fail(Errc::corrupt, "array '{}' has no sensible shape", name);
    }
  }
  if (bytes != member->bytes) {
    fail(Errc::corrupt, "array '{}' has {} bytes instead of {}", name, member->bytes, bytes);
  }
  return {{"name", name},
          {"dtype", to_string(*dtype)},
          {"shape", entry.at("shape")},
          {"offset", member->offset},
          {"bytes", bytes}};
}

/// The arrays by name, or by the name of a dataset and their own.
void add_arrays(const Archive& archive, const std::string& prefix, const nlohmann::json& entries,
                Json& arrays, std::vector<std::string>& warnings) {
  constexpr std::size_t kMostArrays = 10'000;
  for (const auto& [key, entry] : entries.items()) {
    if (!entry.is_object() || arrays.size() > kMostArrays) continue;
    const std::string name = prefix + key;
    if (!entry.contains("path")) {
      if (prefix.empty()) add_arrays(archive, name + "/", entry, arrays, warnings);
      continue;
    }
    try {
      arrays.push_back(array_of(archive, name, entry));
    } catch (const Error& error) {
      warnings.push_back(fmt::format("anemoi's metadata: {}", error.what()));
    } catch (const nlohmann::json::exception&) {
      warnings.push_back(fmt::format("anemoi's metadata: array '{}' is not described", name));
    }
  }
}

}  // namespace

std::string anemoi_metadata_of(const File& file, const Archive& archive,
                               std::vector<std::string>& warnings) {
  try {
    const ZipMember* member = find_member(archive);
    if (member == nullptr) return {};
    const nlohmann::json metadata =
        nlohmann::json::parse(text_of(file, archive, *member), nullptr, /*allow_exceptions=*/false);
    if (!metadata.is_object()) fail(Errc::corrupt, "'{}' is no JSON", member->name);
    Json json = {{"member", member->name}, {"offset", member->offset}, {"bytes", member->bytes}};
    Json supporting = Json::array();
    const auto arrays = metadata.find("supporting_arrays_paths");
    if (arrays != metadata.end() && arrays->is_object()) {
      add_arrays(archive, "", *arrays, supporting, warnings);
    }
    // The metadata as a text: as a part of the other JSON it would be there twice.
    const auto text = [](const auto& part) {
      return part.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    };
    std::string all = text(json);
    all.pop_back();
    all += ",\"metadata\":" + text(metadata);
    return all + ",\"supporting_arrays\":" + text(supporting) + "}";
  } catch (const Error& error) {
    if (error.code() == Errc::io) throw;
    warnings.push_back(fmt::format("anemoi's metadata can't be used: {}", error.what()));
    return {};
  }
}

}  // namespace cairn::detail::torch
