#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cairn/checkpoint.hpp"
#include "checkpoint/marks.hpp"

namespace cairn::detail {

// A checkpoint that takes tensors from older ones (SaveOptions::delta) is as good as they are. The
// mark is that of the file that holds the damage, so that all who need it are passed over, and none
// is any more once the file is put back.

/// Why a checkpoint can't be loaded, as far as marks tell: its own, or that of a file from which it
/// takes a damaged tensor. Calls HDF5 only for files that another program rewrote, if it may.
/// Local. Errors: io.
std::optional<Mark> unusable_mark_of(const std::filesystem::path& checkpoint, bool may_call_hdf5);

/// Marks the files that hold `defects`, one or more, which were found in `checkpoint`, so that
/// unusable_mark_of() has a mark for it, without HDF5, too. Returns the files. Local. Errors: io.
std::vector<std::filesystem::path> mark_damage(const std::filesystem::path& checkpoint,
                                               std::span<const Defect> defects);

}  // namespace cairn::detail
