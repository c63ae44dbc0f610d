#pragma once

#include <filesystem>
#include <functional>

#include "cairn/manifest.hpp"
#include "formats/table_bytes.hpp"

namespace cairn::detail {

/// Reads a model whose tensors lie whole in several files beside a JSON index
/// (`model.safetensors.index.json`): `metadata`, and `weight_map` from names to files.
/// `read_shard` reads one of them and counts it in `table_bytes`, which counts the index, too. The
/// index is the manifest's first file, and what its `metadata` says is the document `index`. Index
/// and shards must name the same tensors; a shard's path may not leave the index's directory.
/// Local. Errors: not_found, io; corrupt, naming the shard; unsafe; those of `read_shard`.
Manifest read_sharded(const std::filesystem::path& index, TableBytes& table_bytes,
                      const std::function<Manifest(const std::filesystem::path&)>& read_shard);

}  // namespace cairn::detail
