#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "cairn/export.hpp"

namespace cairn::detail::names {

/// Every file and dataset name that cairn makes or parses is built here; those of the cache in
/// cache_names.hpp.

inline constexpr std::string_view kIndex = "index";
inline constexpr std::string_view kCommit = "commit";
inline constexpr std::string_view kMeta = "meta";
inline constexpr std::string_view kRanks = "ranks";
inline constexpr std::string_view kLast = "last";
/// The file in which other trainers' runs end.
inline constexpr std::string_view kLastOfOthers = "last.ckpt";

/// "step-00001000.h5"
std::string checkpoint_file(std::uint64_t step);
/// The step of such a name; nothing for any other name.
std::optional<std::uint64_t> parse_checkpoint_file(std::string_view name);
/// "weights-00001000.h5": the model of a step alone, which no resume takes for a checkpoint.
CAIRN_EXPORT std::string weights_file(std::uint64_t step);
/// The hidden file in which `target` is built, beside it. A later save of the same step reuses the
/// name.
std::filesystem::path partial_file(const std::filesystem::path& target);
/// The short-lived hidden file in which HDF5 builds the metadata of `target`.
std::filesystem::path skeleton_file(const std::filesystem::path& target);
/// The hidden name under which the `last` link is made before it is moved into place.
std::filesystem::path partial_link(const std::filesystem::path& link);
/// The hidden files beside `checkpoint` that tell something about it (src/checkpoint/marks.hpp).
std::filesystem::path pin_file(const std::filesystem::path& checkpoint);
std::filesystem::path bad_mark(const std::filesystem::path& checkpoint);
std::filesystem::path verified_mark(const std::filesystem::path& checkpoint);
/// What a hidden file of a run's directory is to the checkpoint of a step.
enum class Sidecar { partial, skeleton, pin, bad, verified };
struct SidecarName {
  std::string checkpoint;  ///< the name of the checkpoint's file
  Sidecar kind;
};
std::optional<SidecarName> parse_sidecar(std::string_view name);
/// Who uses a run's directory; and a would-be user.
inline constexpr std::string_view kLease = ".lease";
std::string lease_candidate(std::uint64_t nonce);
bool is_lease_candidate(std::string_view name);
/// The right to replace the lease of `holder`, of whoever follows `last`: the holder itself, or one
/// that had the right and died.
std::string lease_claim(std::uint64_t holder, std::uint64_t last);
/// The `holder` of such a name.
std::optional<std::uint64_t> parse_lease_claim(std::string_view name);
/// How often a run was started without progress.
inline constexpr std::string_view kRestarts = ".restarts";
/// The short-lived hidden name under which a small file is made before it is moved into place.
std::filesystem::path partial_small(const std::filesystem::path& target, std::uint64_t nonce);
/// "model-00001-of-00003.safetensors"; `number` counts from 1
std::string shard_file(std::size_t number, std::size_t count);
/// "ranks/<blob>"
std::string rank_blob(std::string_view blob);
bool is_rank_blob(std::string_view tensor);
/// "meta/<document>"
std::string document(std::string_view name);

/// The order in which people list names: runs of digits by their value, everything else by bytes,
/// so that "h.2" comes before "h.10". A total order: texts that only differ in leading zeros are
/// ordered by bytes.
bool natural_less(std::string_view a, std::string_view b);

/// Errors: usage, when `name` cannot be a dataset's path: empty or dot components, control
/// characters, over-long, or a first component that cairn keeps for itself.
void check_tensor_name(std::string_view name);

}  // namespace cairn::detail::names
