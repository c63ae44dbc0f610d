#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cairn/tensor_view.hpp"

namespace cairn::detail {

/// Who holds which piece, found without any rank seeing the pieces of all (docs/design.md,
/// "Planning"). Every piece has a key, the same for its replicas. A rank sends each key to the
/// key's keeper, one of the ranks; the keeper tells every holder which group of ranks holds the
/// piece, and one of them to describe it to rank 0. The work of a rank grows with the pieces that
/// it holds, not with the number of ranks. All functions are Local.

/// What a keeper says of a piece to one of its holders.
struct Holding {
  std::uint64_t group = 0;  ///< names the set of holders
  bool describes = false;   ///< true for one of them
  bool replicated = false;  ///< there are more than one
};

/// Equal for replicas: hash of name, dtype, shape and box. "Replicated" and a block that is the
/// whole tensor hold the same; pieces without elements have no box.
std::uint64_t piece_key(const TensorView& piece);

/// The name of a group, from its ranks in ascending order.
std::uint64_t group_name(std::span<const std::uint64_t> ranks);

/// Words for each rank, by rank: what Comm::exchange takes and gives.
using Words = std::vector<std::vector<std::uint64_t>>;

/// The keys of one rank's pieces and the rank that each goes to.
class PieceKeys {
 public:
  PieceKeys() = default;
  /// Of pieces with these keys. A key that comes twice is one piece.
  PieceKeys(std::span<const std::uint64_t> keys, int ranks);
  /// Pieces without elements of one tensor count as one.
  /// Errors: usage, when a piece is given twice.
  PieceKeys(std::span<const TensorView> pieces, int ranks);

  /// The keys for each keeper.
  const Words& questions() const { return questions_; }
  /// By piece: what the keepers, by rank, answered. The second of two pieces that count as one
  /// describes nothing. Errors: internal, when an answer is missing.
  std::vector<Holding> holdings(const Words& answers) const;

  /// One word for each piece, in the order of the questions.
  Words for_keepers(std::span<const std::uint64_t> by_piece) const;
  /// Inverse of for_keepers. Errors: internal, when an answer is missing.
  std::vector<std::uint64_t> from_keepers(const Words& answers) const;

 private:
  struct Place {
    std::size_t keeper = 0;
    std::size_t position = 0;  // in the keeper's questions
    bool first = true;         // false: counts as one with an earlier piece
  };
  Words questions_;
  std::vector<Place> places_;
};

/// The keeper's part: questions from each rank to answers for each.
Words answer_questions(const Words& questions);

}  // namespace cairn::detail
