#pragma once

#include <filesystem>

#include "cairn/manifest.hpp"
#include "formats/table_bytes.hpp"

namespace cairn::detail::deepspeed {

/// Whether the directory of a tag holds a universal checkpoint, which DeepSpeed's converter makes
/// for any number of ranks. Local.
bool is_universal(const std::filesystem::path& tag);
/// Reads one: `zero/<parameter>/<fp32, exp_avg, ...>.pt`, each a whole tensor, and the files of the
/// model beside `zero`. Adds tensors, files and the document `deepspeed`; `table_bytes` counts
/// them. Local. Errors: corrupt, unsupported, unsafe, io.
void read_universal(const std::filesystem::path& tag, Manifest& manifest, TableBytes& table_bytes);

}  // namespace cairn::detail::deepspeed
