#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "cairn/manifest.hpp"
#include "manifest/container_names.hpp"
#include "manifest/documents.hpp"

namespace cairn::detail {

/// What a container holds besides tensors, wherever it is now: in itself, in the metadata of
/// safetensors or below the key "cairn" of a file of PyTorch's; of other checkpoints, their
/// documents.
struct Travelling {
  bool packed = false;  ///< the source is no container, but was made from one
  std::uint64_t step = 0;
  std::map<std::string, std::string> documents;
  /// Names of safetensors that are a container's, though they do not look like it.
  std::set<std::string> paths;
};

/// Local.
Travelling travelling_in(const Manifest& source);
/// What a tensor of the source is called in a container. `names` are the source's. Local.
std::string container_name(const Travelling& travelling, const names::ContainerNames& names,
                           const TensorEntry& tensor);

/// Whether a format tells its values at their paths, beside the tensors. Local.
bool is_tree(const Manifest& source);
/// Whether a document says how files were written, which is said anew of others. Local.
bool is_origin(std::string_view document);
/// Whether a document describes what else is in a file of PyTorch's, beside its tensors. Local.
bool describes_tree(std::string_view document);

/// A count that a training noted under a key, at the root of what is beside its weights, or else in
/// one of the dicts in which trainers keep such. Local.
std::optional<std::uint64_t> progress_in(const nlohmann::ordered_json& training,
                                         std::string_view key);

inline constexpr const char* kMetadata = "__metadata__";
/// The document of a container that says at which paths its tensors were: a list of [name, path].
inline constexpr const char* kTree = "tree";

/// `__metadata__` of the source as an object of texts; empty where there is none. Local.
nlohmann::ordered_json metadata_of(const Manifest& source);
/// `metadata` with a container's documents and step. Local.
nlohmann::ordered_json with_travelling(nlohmann::ordered_json metadata,
                                       const Travelling& travelling);
// Keys of safetensors' metadata: the mark by which they are known to come from a container, and a
// list of the names that are a container's and do not look like it.
inline constexpr const char* kMark = "cairn";
// The key of `__metadata__` that a conversion added and the container has not.
inline constexpr const char* kAdded = "cairn.added";
inline constexpr const char* kPaths = "cairn.paths";

}  // namespace cairn::detail
