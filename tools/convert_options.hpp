#pragma once

#include <string>

#include "checkpoint/convert.hpp"
#include "output.hpp"

namespace cairn::tool {

/// The format that `to` names; without it, the one that the name of `out` tells, which may be a
/// directory for shards. Local. Errors: usage.
detail::TargetFormat target_format(const std::string& out, const std::string& to, bool has_shards);

/// What a conversion did, as --json prints it. Local.
Json json_of(const std::string& out, const detail::ConvertResult& result);

}  // namespace cairn::tool
