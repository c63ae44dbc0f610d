#pragma once

#include <string>
#include <string_view>

#include "pipeline/legacy/plan.hpp"

namespace cairn::detail::legacy {

/// A text as a YAML scalar that every reader takes for that text.
std::string scalar(std::string_view text, bool in_flow);

/// The entries of `block` as lines with this indentation, each with its comments above it; `path`
/// is the block's own.
std::string block_lines(const Json& block, const Plan& plan, const std::string& path,
                        std::size_t indent);
/// The same on one line, without comments: "a: 1, b: {c: 2}".
std::string flow_entries(const Json& block);
std::string comment_lines(const std::vector<std::string>& lines, std::size_t indent);

}  // namespace cairn::detail::legacy
