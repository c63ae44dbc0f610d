#pragma once

#include <string_view>
#include <vector>

#include "os/file.hpp"
#include "transfer/engine.hpp"

namespace cairn::detail {

/// Reads the items of a job that were written, and compares them with what was reported of them;
/// all ranks must have written by then. `writer` reported success, and `advice` is what to do where
/// that was wrong. Local. Errors: io, naming the tensor.
void check_read_back(const WriteJob& job, const File& file, const std::vector<PartReport>& reports,
                     std::string_view writer, std::string_view advice);

}  // namespace cairn::detail
