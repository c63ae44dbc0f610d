#pragma once

#include <string>

#include "pipeline/legacy/plan.hpp"

namespace cairn::detail::legacy {

/// The text of `document` with the plan carried out: old keys out, new blocks in, everything else
/// byte for byte. Puts into the plan's errors what cannot be done, and returns the text as it was
/// then. `origin` names the text.
std::string edited(const std::string& text, const Value& document, Plan& plan,
                   const std::string& origin);

}  // namespace cairn::detail::legacy
