#include "plan/load_groups.hpp"

#include <gtest/gtest.h>

#include "plan/replicas.hpp"

namespace cairn::detail {
namespace {

using Ranks = std::vector<std::uint64_t>;

/// What the ranks of a job of `ranks` tell of groups that want so many bytes each.
std::vector<std::vector<GroupWish>> wishes(
    std::size_t ranks, const std::vector<std::pair<Ranks, std::uint64_t>>& groups) {
  std::vector<std::vector<GroupWish>> by_rank(ranks);
  for (const auto& [members, bytes] : groups) {
    for (const std::uint64_t rank : members) {
      by_rank[rank].push_back({group_name(members), bytes});
    }
  }
  return by_rank;
}

std::uint64_t any(std::size_t) { return 1; }

TEST(ChooseTurns, DisjointGroupsShareATurn) {
  const auto turns = choose_turns(wishes(5, {{{0, 2}, 10}, {{1, 3, 4}, 10}}), any);
  ASSERT_EQ(turns.size(), 5U);
  for (const auto& of_rank : turns) {
    ASSERT_EQ(of_rank.size(), 1U);
    ASSERT_TRUE(of_rank[0]);
    EXPECT_EQ(of_rank[0]->turn, 0U);
  }
  EXPECT_EQ(turns[0][0]->number, turns[2][0]->number);
  EXPECT_EQ(turns[1][0]->number, turns[4][0]->number);
  EXPECT_NE(turns[0][0]->number, turns[1][0]->number);
}

TEST(ChooseTurns, GroupsThatOverlapTakeTurnsTheOneThatSavesMostFirst) {
  const auto turns = choose_turns(wishes(3, {{{0, 1}, 30}, {{1, 2}, 50}, {{0, 1, 2}, 40}}), any);
  EXPECT_EQ(turns[0][0]->turn, 2U);  // saves 30
  EXPECT_EQ(turns[0][1]->turn, 0U);  // saves 2 x 40
  EXPECT_EQ(turns[1][1]->turn, 1U);  // saves 50
  EXPECT_EQ(turns[2][0]->turn, 1U);
}

TEST(ChooseTurns, WhatIsNotWorthATurnHasNone) {
  const auto least = [](std::size_t ranks) { return std::uint64_t{10} * ranks; };
  const auto turns = choose_turns(wishes(4, {{{0, 1}, 20}, {{1, 2, 3}, 29}}), least);
  EXPECT_TRUE(turns[1][0]);
  EXPECT_FALSE(turns[1][1]);
  EXPECT_FALSE(turns[3][0]);
}

TEST(ChooseTurns, AGroupOfWhichARankDidNotTellHasNone) {
  auto told = wishes(4, {{{0, 1, 3}, 10}, {{0, 1}, 10}});
  told[3].clear();
  const auto turns = choose_turns(told, any);
  EXPECT_FALSE(turns[0][0]);
  EXPECT_TRUE(turns[0][1]);
}

TEST(ChooseTurns, ThereAreNotMoreThanFew) {
  std::vector<std::pair<Ranks, std::uint64_t>> groups;
  for (std::uint64_t other = 1; other < 40; ++other) groups.push_back({{0, other}, 100 - other});
  const auto turns = choose_turns(wishes(40, groups), any);
  std::size_t chosen = 0;
  for (const auto& turn : turns[0]) {
    if (!turn) continue;
    EXPECT_LT(turn->turn, kMostTurns);
    ++chosen;
  }
  EXPECT_EQ(chosen, kMostTurns);
  EXPECT_TRUE(turns[1][0]) << "the largest comes first";
}

}  // namespace
}  // namespace cairn::detail
