#include "manifest/documents.hpp"

#include "base/json_text.hpp"

namespace cairn::detail {

nlohmann::ordered_json document_of(const std::map<std::string, std::string>& documents,
                                   const std::string& name) {
  const auto found = documents.find(name);
  if (found == documents.end()) return nullptr;
  auto json = parse_ordered(found->second);
  return json.is_discarded() ? nlohmann::ordered_json() : std::move(json);
}

}  // namespace cairn::detail
