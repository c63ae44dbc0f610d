#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cairn/comm.hpp"

namespace cairn::detail {

/// The texts of all ranks in their order, on all ranks; a single one when all are equal, which then
/// costs one small reduction. Collective. Errors: timeout.
std::vector<std::string> share_texts(const Comm& comm, std::string_view step,
                                     const std::string& mine);

}  // namespace cairn::detail
