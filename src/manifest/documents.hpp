#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace cairn::detail {

/// The document of that name, null where there is none or it is no JSON. Local.
nlohmann::ordered_json document_of(const std::map<std::string, std::string>& documents,
                                   const std::string& name);

}  // namespace cairn::detail
