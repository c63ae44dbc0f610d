#include "checkpoint/convert_documents.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "base/json_text.hpp"
#include "base/throw.hpp"

namespace cairn::detail {
namespace {

using Json = nlohmann::ordered_json;

// Keys of safetensors' metadata that cairn writes.
constexpr std::string_view kStep = "cairn.step";
constexpr std::string_view kDocument = "cairn.document.";

/// A document that a file brings along in a text. Errors: unsafe (nested too deep).
void unpack_document(const std::string& name, const std::string& text, Travelling& travelling) {
  if (is_deeper(text)) {
    fail(Errc::unsafe, "its document '{}' is nested deeper than {}", name, kMostJsonDepth);
  }
  travelling.documents[name] = text;
}

void unpack_metadata(const Json& packed, Travelling& travelling) {
  Json rest = Json::object();
  const std::string added = packed.value(kAdded, "");
  for (const auto& [key, value] : packed.items()) {
    const std::string& text = value.get_ref<const std::string&>();
    if (key == kStep) {
      std::from_chars(text.data(), text.data() + text.size(), travelling.step);
    } else if (key == kPaths) {
      for (const Json& name : parse_ordered(text)) {
        if (name.is_string()) travelling.paths.insert(name.get<std::string>());
      }
    } else if (key.starts_with(kDocument)) {
      unpack_document(key.substr(kDocument.size()), text, travelling);
    } else if (key != kMark && key != kAdded && key != added) {
      append_member(rest, key, text);
    }
  }
  travelling.documents.erase(kMetadata);
  if (!rest.empty()) travelling.documents[kMetadata] = rest.dump();
}

/// The list of objects without what is below the key "cairn".
std::string without_own(const Json& objects) {
  Json others = Json::array();
  for (const Json& object : objects) {
    const Json path = object.value("path", Json::array());
    if (path.empty() || path[0] != names::kOwnKey) others.push_back(object);
  }
  return others.dump();
}

/// What is below the key "cairn": {step, documents: {name: text}}. False where there is no step:
/// the file is another program's, and may have documents of ours.
bool unpack_tree(const Manifest& source, Travelling& travelling) {
  bool found = false;
  for (const Json& object : document_of(source.documents, "objects")) {
    const Json path = object.value("path", Json::array());
    if (path.size() < 2 || path[0] != names::kOwnKey) continue;
    const Json value = object.value("value", Json());
    if (path.size() == 2 && path[1] == "step" && value.is_number_unsigned()) {
      travelling.step = value.get<std::uint64_t>();
      found = true;
    } else if (path.size() == 3 && path[1] == "documents" && path[2].is_string() &&
               value.is_string()) {
      unpack_document(path[2].get<std::string>(), value.get_ref<const std::string&>(), travelling);
    }
  }
  return found;
}

}  // namespace

bool is_tree(const Manifest& source) { return source.format == "torch" || source.format == "dcp"; }

bool is_origin(std::string_view document) {
  constexpr std::array<std::string_view, 6> kNames{"topology", "provenance", "index",
                                                   "shards",   "archive",    "globals"};
  return std::find(kNames.begin(), kNames.end(), document) != kNames.end();
}

bool describes_tree(std::string_view document) {
  constexpr std::array<std::string_view, 9> kNames{"objects",    "opaque",     "arrays",
                                                   "aliases",    "containers", "roles",
                                                   "optimizers", "training",   kTree};
  return std::find(kNames.begin(), kNames.end(), document) != kNames.end();
}

std::optional<std::uint64_t> progress_in(const Json& training, std::string_view key) {
  constexpr std::array<std::string_view, 7> kDicts{
      "", "trainer", "trainer_state", "train_state", "extra_state", "extra", "app"};
  if (!training.is_object()) return std::nullopt;
  for (const std::string_view name : kDicts) {
    const auto at = name.empty() ? training.end() : training.find(name);
    if (!name.empty() && at == training.end()) continue;
    const Json& dict = name.empty() ? training : *at;
    const auto count = dict.is_object() ? dict.find(key) : dict.end();
    // What is no number, or negative, is none.
    if (dict.is_object() && count != dict.end() && count->is_number_integer() &&
        count->get<std::int64_t>() >= 0) {
      return count->get<std::uint64_t>();
    }
  }
  return std::nullopt;
}

Json metadata_of(const Manifest& source) {
  Json metadata = document_of(source.documents, kMetadata);
  const bool is_flat =
      metadata.is_object() && std::all_of(metadata.begin(), metadata.end(),
                                          [](const Json& value) { return value.is_string(); });
  return is_flat ? std::move(metadata) : Json::object();
}

Travelling travelling_in(const Manifest& source) {
  Travelling travelling;
  travelling.step = source.commit.step;
  if (source.format == "torch" && unpack_tree(source, travelling)) {
    travelling.packed = true;
    return travelling;
  }
  const bool own = !travelling.documents.empty();
  for (const auto& [name, text] : source.documents) {
    if (!is_origin(name)) travelling.documents[name] = text;
  }
  if (own) {
    travelling.documents["objects"] = without_own(document_of(source.documents, "objects"));
  }
  const Json metadata = metadata_of(source);
  if (source.is_container()) return travelling;
  if (!metadata.contains(kMark)) {
    // A model alone, which cairn gave the metadata.
    if (metadata.value(kAdded, "") == "format" && metadata.size() == 2) {
      travelling.documents.erase(kMetadata);
    }
    return travelling;
  }
  travelling.packed = true;
  unpack_metadata(metadata, travelling);
  return travelling;
}

std::string container_name(const Travelling& travelling, const names::ContainerNames& names,
                           const TensorEntry& tensor) {
  const bool is_path =
      travelling.packed && tensor.path.empty() &&
      (names::looks_like_path(tensor.name) || travelling.paths.contains(tensor.name));
  return is_path ? tensor.name : names.of(tensor);
}

Json with_travelling(Json metadata, const Travelling& travelling) {
  Json all = Json::object();
  for (auto& [key, value] : metadata.items()) {
    const bool anew = key == kStep
                          ? travelling.step != 0
                          : key.starts_with(kDocument) &&
                                travelling.documents.contains(key.substr(kDocument.size()));
    if (!anew) append_member(all, key, std::move(value));
  }
  for (const auto& [name, text] : travelling.documents) {
    if (name != kMetadata) append_member(all, fmt::format("{}{}", kDocument, name), text);
  }
  if (travelling.step != 0) append_member(all, std::string(kStep), std::to_string(travelling.step));
  return all;
}

}  // namespace cairn::detail
