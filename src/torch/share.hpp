#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/comm.hpp"
#include "cairn/context.hpp"
#include "pipeline/trace.hpp"

namespace cairn::detail {

/// The texts of all ranks in their order, on all ranks; a single one when all are equal, which then
/// costs one small reduction. Collective. Errors: timeout.
std::vector<std::string> share_texts(const Comm& comm, std::string_view step,
                                     const std::string& mine);

/// The newest committed checkpoint of `dir` as rank 0 sees it. Collective. Errors: io, timeout.
std::optional<std::filesystem::path> share_newest(const Comm& comm,
                                                  const std::filesystem::path& dir);

/// Rank 0's reports for all. Collective. Errors: timeout.
void share_reports(const Comm& comm, std::vector<StateReport>& reports);

/// The trace of all ranks: times of the slowest, bytes of all. Collective.
std::vector<StageTrace> unite_traces(const Comm& comm, const Trace& trace);

}  // namespace cairn::detail
