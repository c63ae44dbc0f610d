#include "checkpoint/packed.hpp"

#include <algorithm>
#include <charconv>

namespace cairn::detail {

using Json = nlohmann::ordered_json;

Json metadata_of(const Manifest& source) {
  const auto found = source.documents.find(std::string(kSafetensorsMetadata));
  Json metadata = found == source.documents.end()
                      ? Json::object()
                      : Json::parse(found->second, nullptr, /*allow_exceptions=*/false);
  const bool is_flat =
      metadata.is_object() && std::all_of(metadata.begin(), metadata.end(),
                                          [](const Json& value) { return value.is_string(); });
  return is_flat ? metadata : Json::object();
}

bool is_marked(const Manifest& source) {
  return !source.is_container() && metadata_of(source).contains(kPackedMark);
}

Unpacked unpack(const Manifest& source) {
  Unpacked unpacked;
  const Json metadata = metadata_of(source);
  for (const auto& [key, value] : metadata.items()) {
    const std::string& text = value.get_ref<const std::string&>();
    if (key == kPackedStep) {
      std::uint64_t step = 0;
      const auto end = text.data() + text.size();
      if (std::from_chars(text.data(), end, step).ptr == end) unpacked.step = step;
    } else if (key.starts_with(kPackedDocument)) {
      unpacked.documents[key.substr(kPackedDocument.size())] = text;
    } else if (key != kPackedMark) {
      unpacked.rest[key] = text;
    }
  }
  return unpacked;
}

}  // namespace cairn::detail
