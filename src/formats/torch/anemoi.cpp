#include "formats/torch/anemoi.hpp"

#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "base/throw.hpp"
#include "formats/torch/numpy.hpp"
#include "formats/torch/values.hpp"

namespace cairn::detail::torch {
namespace {

constexpr std::uint64_t kMostBytes = 64 << 20;
constexpr std::size_t kMostDepth = 200;  // whoever prints it recurses

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
  std::size_t depth = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (quoted) {
      plain += c;
      if (c == '\\' && at + 1 < text.size()) plain += text[++at];
      quoted = c != '"';
      continue;
    }
    quoted = c == '"';
    if (c == '[' || c == '{') ++depth;
    if ((c == ']' || c == '}') && depth > 0) --depth;
    if (depth > kMostDepth) fail(Errc::unsafe, "it is nested deeper than {}", kMostDepth);
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
    const std::vector<std::byte> bytes = read_member(file, *member, kMostBytes);
    const std::string text =
        plain_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    const nlohmann::json metadata =
        nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!metadata.is_object()) fail(Errc::corrupt, "'{}' is no JSON", member->name);
    Json json = {{"member", member->name}, {"offset", member->offset}, {"bytes", member->bytes}};
    json["metadata"] = metadata;
    json["supporting_arrays"] = Json::array();
    const auto arrays = metadata.find("supporting_arrays_paths");
    if (arrays != metadata.end() && arrays->is_object()) {
      add_arrays(archive, "", *arrays, json["supporting_arrays"], warnings);
    }
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
  } catch (const Error& error) {
    if (error.code() == Errc::io) throw;
    warnings.push_back(fmt::format("anemoi's metadata can't be used: {}", error.what()));
    return {};
  }
}

}  // namespace cairn::detail::torch
