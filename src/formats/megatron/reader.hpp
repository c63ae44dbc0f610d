#pragma once

#include <filesystem>

#include "cairn/manifest.hpp"
#include "formats/table_bytes.hpp"

namespace cairn::detail {

/// Whether a directory holds a checkpoint in Megatron-LM's own format `torch`: the file
/// `latest_checkpointed_iteration.txt`, or directories `mp_rank_XX[_YYY]` with a
/// `model_optim_rng.pt`. Local.
bool is_megatron(const std::filesystem::path& directory);
/// Reads one. Of a model that is divided among ranks, the tensors whose division is known by their
/// names are put together, and layers of pipeline stages are numbered through; others keep the
/// rank's directory in their names. docs/formats.md, "Megatron", says which. `table_bytes` counts
/// the files and their tensors. Local. Errors: not_found, io; corrupt (a rank's file is missing);
/// unsupported (experts divided among ranks); unsafe.
Manifest read_megatron(const std::filesystem::path& directory, TableBytes& table_bytes);

}  // namespace cairn::detail
