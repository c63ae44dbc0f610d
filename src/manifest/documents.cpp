#include "manifest/documents.hpp"

namespace cairn::detail {

nlohmann::ordered_json document_of(const std::map<std::string, std::string>& documents,
                                   const std::string& name) {
  const auto found = documents.find(name);
  if (found == documents.end()) return nullptr;
  auto json = nlohmann::ordered_json::parse(found->second, nullptr, /*allow_exceptions=*/false);
  return json.is_discarded() ? nlohmann::ordered_json() : json;
}

}  // namespace cairn::detail
