#include "plan/load_groups.hpp"

#include <algorithm>
#include <map>
#include <tuple>

#include "plan/replicas.hpp"

namespace cairn::detail {
namespace {

struct Group {
  std::uint64_t name = 0;
  std::uint64_t bytes = 0;
  std::vector<std::uint64_t> ranks;

  std::uint64_t saved() const { return bytes * (ranks.size() - 1); }
};

std::vector<Group> groups_of(const std::vector<std::vector<GroupWish>>& by_rank,
                             const std::function<std::uint64_t(std::size_t)>& least) {
  std::map<std::uint64_t, Group> by_name;
  for (std::size_t rank = 0; rank < by_rank.size(); ++rank) {
    for (const GroupWish& wish : by_rank[rank]) {
      Group& group = by_name[wish.group];
      group.name = wish.group;
      group.bytes = wish.bytes;
      group.ranks.push_back(rank);
    }
  }
  std::vector<Group> groups;
  for (auto& [name, group] : by_name) {
    if (group.ranks.size() < 2 || group_name(group.ranks) != name) continue;
    if (group.bytes >= least(group.ranks.size())) groups.push_back(std::move(group));
  }
  std::sort(groups.begin(), groups.end(), [](const Group& a, const Group& b) {
    return std::tuple(b.saved(), a.ranks) < std::tuple(a.saved(), b.ranks);
  });
  return groups;
}

}  // namespace

std::vector<std::vector<std::optional<GroupTurn>>> choose_turns(
    const std::vector<std::vector<GroupWish>>& by_rank,
    const std::function<std::uint64_t(std::size_t ranks)>& least) {
  std::vector<std::uint32_t> busy(by_rank.size(), 0);  // bit by turn
  std::uint32_t groups_in[kMostTurns] = {};
  std::map<std::uint64_t, GroupTurn> chosen;
  for (const Group& group : groups_of(by_rank, least)) {
    std::uint32_t taken = 0;
    for (const std::uint64_t rank : group.ranks) taken |= busy[rank];
    std::uint32_t turn = 0;
    while ((taken >> turn & 1) != 0) ++turn;
    if (turn >= kMostTurns) continue;
    for (const std::uint64_t rank : group.ranks) busy[rank] |= std::uint32_t{1} << turn;
    chosen[group.name] = {turn, groups_in[turn]++};
  }
  std::vector<std::vector<std::optional<GroupTurn>>> turns(by_rank.size());
  for (std::size_t rank = 0; rank < by_rank.size(); ++rank) {
    for (const GroupWish& wish : by_rank[rank]) {
      const auto known = chosen.find(wish.group);
      turns[rank].push_back(known == chosen.end() ? std::nullopt : std::optional(known->second));
    }
  }
  return turns;
}

}  // namespace cairn::detail
