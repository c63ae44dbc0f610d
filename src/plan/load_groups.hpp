#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace cairn::detail {

/// A group of ranks that want the same pieces, as one of them tells of it.
struct GroupWish {
  std::uint64_t group = 0;  ///< group_name() of its ranks
  std::uint64_t bytes = 0;  ///< that each of them wants
};

/// When a group shares its reads. Groups of one turn have no rank in common.
struct GroupTurn {
  std::uint32_t turn = 0;
  std::uint32_t number = 0;  ///< tells the groups of one turn apart
};

/// Groups overlap where tensors are divided in several ways; a rank can share with one at a time.
/// More turns than this are not worth their waits: what is left each rank reads by itself.
inline constexpr std::uint32_t kMostTurns = 4;

/// The turns of the wishes, by rank and wish: first come the groups in which sharing saves most.
/// Nothing for a group that not all of its ranks told of, that wants less than `least(ranks)`
/// bytes, or for which no turn is left. Deterministic. Local.
std::vector<std::vector<std::optional<GroupTurn>>> choose_turns(
    const std::vector<std::vector<GroupWish>>& by_rank,
    const std::function<std::uint64_t(std::size_t ranks)>& least);

}  // namespace cairn::detail
