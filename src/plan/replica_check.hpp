#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cairn/tensor_view.hpp"
#include "plan/replicas.hpp"

namespace cairn::detail {

/// Whether ranks that hold the same piece hold the same bytes of it. A rank sends digests of its
/// replicated pieces to the pieces' keepers (plan/replicas.hpp); a keeper answers which differ; who
/// holds such a piece tells rank 0. All functions are Local.

/// Digest of all bytes of a piece.
std::uint64_t full_digest(std::span<const std::byte> bytes);
/// Digest of 4 KiB in every MiB, elsewhere for every `turn`.
std::uint64_t sample_digest(std::span<const std::byte> bytes, std::uint64_t turn);

/// The keeper's part: `digests` from each rank, in the order of its `questions` to this keeper.
struct Comparison {
  Words answers;             ///< for each rank and question: 1 where replicas differ
  std::uint64_t pieces = 0;  ///< that differ
};
/// Errors: internal, when there is not one digest for each question.
Comparison compare_replicas(const Words& questions, const Words& digests);

/// The first piece, in natural order of the names, that differs on a rank.
struct Divergence {
  std::string name;  ///< empty: none does
  Box box;
  std::uint64_t digest = 0;
};
/// What one rank tells rank 0. `differs` and `digests`: by piece.
Divergence first_divergence(std::span<const TensorView> pieces, const std::vector<bool>& differs,
                            std::span<const std::uint64_t> digests);
std::vector<std::byte> encode_divergence(const Divergence& divergence);
/// Throws mismatch, naming the first of the ranks' pieces that differs and who holds what.
/// `pieces`: how many differ in all.
[[noreturn]] void fail_diverged(const std::vector<std::vector<std::byte>>& encoded,
                                std::uint64_t pieces);

}  // namespace cairn::detail
