#include "plan/save_plan.hpp"

#include <gtest/gtest.h>

#include "cairn/error.hpp"
#include "plan/tiling.hpp"

namespace cairn::detail {
namespace {

TensorView piece(const std::string& name, const Placement& placement, DType dtype = DType::f32) {
  return {name, dtype, placement, nullptr};
}

/// What the ranks of a save do, in one process.
std::vector<TensorEntry> plan_of(const std::vector<std::vector<TensorView>>& ranks) {
  const std::size_t size = ranks.size();
  std::vector<PieceKeys> keys;
  for (const auto& pieces : ranks) keys.emplace_back(pieces, static_cast<int>(size));
  const auto transposed = [&](const std::vector<Words>& sent) {
    std::vector<Words> received(size, Words(size));
    for (std::size_t from = 0; from < size; ++from) {
      for (std::size_t to = 0; to < size; ++to) received[to][from] = sent[from][to];
    }
    return received;
  };
  std::vector<Words> questions;
  for (const PieceKeys& k : keys) questions.push_back(k.questions());
  std::vector<Words> answers;
  for (const Words& asked : transposed(questions)) answers.push_back(answer_questions(asked));
  answers = transposed(answers);
  std::vector<RankReport> reports;
  for (std::size_t r = 0; r < size; ++r) {
    reports.push_back(
        decode_report(encode_report(report_of(ranks[r], keys[r].holdings(answers[r])))));
  }
  return plan_save(reports);
}

std::string error_of(const std::vector<std::vector<TensorView>>& ranks, Errc code) {
  try {
    plan_of(ranks);
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.code()), to_string(code)) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

TEST(PlanSave, ReplicasAreWrittenOnceAndShared) {
  std::vector<TensorView> all;
  for (int i = 0; i < 8; ++i) {
    all.push_back(piece("model/w" + std::to_string(i), Placement::replicated({64, 64})));
  }
  const auto tensors = plan_of(std::vector<std::vector<TensorView>>(4, all));
  std::vector<int> written(4, 0);
  for (const TensorEntry& tensor : tensors) {
    ASSERT_EQ(tensor.extents.size(), 1U);
    ++written.at(static_cast<std::size_t>(tensor.extents[0].writer));
  }
  EXPECT_EQ(written, (std::vector<int>{2, 2, 2, 2}));
}

TEST(PlanSave, EveryRankWritesTheSameShareOfWhatRanksHoldTogether) {
  // Three ranks hold one tensor; ranks 1 and 2 also a block each of another, rank 2 a large one.
  const auto state_of = [&](int rank) {
    std::vector<TensorView> pieces{piece("model/all", Placement::replicated({3000, 1024}))};
    for (int i = 0; i < 100; ++i) {
      pieces.push_back(piece("model/small" + std::to_string(i), Placement::replicated({1000})));
    }
    if (rank == 1) {
      pieces.push_back(piece("model/cut", Placement::block({900, 1024}, {{0, 0}, {100, 1024}})));
    }
    if (rank == 2) {
      pieces.push_back(piece("model/cut", Placement::block({900, 1024}, {{100, 0}, {800, 1024}})));
    }
    return pieces;
  };
  const auto tensors = plan_of({state_of(0), state_of(1), state_of(2)});
  std::vector<std::uint64_t> written(3, 0);
  std::uint64_t total = 0;
  for (const TensorEntry& tensor : tensors) {
    check_tiling(tensor);
    total += tensor.bytes();
    for (const Extent& extent : tensor.extents) {
      written.at(static_cast<std::size_t>(extent.writer)) += extent.box.elements() * 4;
      if (tensor.bytes() < 65536) {
        EXPECT_EQ(extent.box, Box::whole(tensor.shape));
      }
    }
  }
  EXPECT_EQ(written[0] + written[1] + written[2], total);
  for (const std::uint64_t bytes : written) {
    EXPECT_NEAR(static_cast<double>(bytes), static_cast<double>(total) / 3, 8192);
  }
}

TEST(PlanSave, ALoadedRankWritesNothingOfWhatOthersHoldToo) {
  const auto tensors = plan_of({{piece("model/shared", Placement::replicated({64, 1024})),
                                 piece("model/own", Placement::replicated({4096, 1024}))},
                                {piece("model/shared", Placement::replicated({64, 1024}))}});
  ASSERT_EQ(tensors.at(1).name, "model/shared");
  ASSERT_EQ(tensors[1].extents.size(), 1U);
  EXPECT_EQ(tensors[1].extents[0].writer, 1);
}

TEST(PlanSave, APieceGivenTwiceIsRefused) {
  EXPECT_NE(error_of({{piece("model/w", Placement::replicated({4})),
                       piece("model/w", Placement::replicated({4}))}},
                     Errc::usage)
                .find("model/w"),
            std::string::npos);
}

TEST(PlanSave, GapsOverlapsAndDisagreementNameTheTensor) {
  const Shape shape{4, 4};
  const auto block = [&](Shape start, Shape count) {
    return piece("model/w", Placement::block(shape, {std::move(start), std::move(count)}));
  };
  EXPECT_NE(
      error_of({{block({0, 0}, {2, 4})}, {block({3, 0}, {1, 4})}}, Errc::mismatch).find("gaps"),
      std::string::npos);
  EXPECT_NE(
      error_of({{block({0, 0}, {3, 4})}, {block({2, 0}, {2, 4})}}, Errc::mismatch).find("overlap"),
      std::string::npos);
  // As many elements as the tensor has, but a pair of boxes overlaps and a corner is missing.
  EXPECT_NE(
      error_of({{block({0, 0}, {2, 4})}, {block({1, 0}, {2, 4})}}, Errc::mismatch).find("model/w"),
      std::string::npos);
  EXPECT_NE(error_of({{piece("model/w", Placement::flat(shape, 0, 7))},
                      {piece("model/w", Placement::flat(shape, 8, 8))}},
                     Errc::mismatch)
                .find("gap"),
            std::string::npos);
  EXPECT_NE(error_of({{piece("model/w", Placement::replicated({4, 4}))},
                      {piece("model/w", Placement::replicated({4, 5}))}},
                     Errc::mismatch)
                .find("rank 1"),
            std::string::npos);
  error_of({{piece("model/w", Placement::replicated({4}))},
            {piece("model/w", Placement::replicated({4}), DType::f64)}},
           Errc::mismatch);
  error_of({{piece("model/a", Placement::replicated({4})),
             piece("model/a/b", Placement::replicated({4}))}},
           Errc::usage);
  error_of({{piece("index/x", Placement::replicated({4}))}}, Errc::usage);
}

TEST(PlanSave, APinwheelTilesWithoutBeingAGrid) {
  const Shape shape{3, 3};
  const auto block = [&](Shape start, Shape count) {
    return piece("model/w", Placement::block(shape, {std::move(start), std::move(count)}));
  };
  const auto tensors =
      plan_of(std::vector<std::vector<TensorView>>{{block({0, 0}, {1, 2}), block({1, 1}, {1, 1})},
                                                   {block({0, 2}, {2, 1})},
                                                   {block({2, 1}, {1, 2})},
                                                   {block({1, 0}, {2, 1})}});
  EXPECT_EQ(tensors.at(0).extents.size(), 5U);
  EXPECT_EQ(tensors.at(0).layout, Layout::contiguous);
}

TEST(ChooseLayout, ChunksOnlyRegularLargeColumnBlocks) {
  const auto layout_of = [](const Shape& shape, std::size_t dim, int parts) {
    std::vector<std::vector<TensorView>> ranks;
    for (int r = 0; r < parts; ++r) {
      ranks.push_back({piece("model/w", Placement::split(shape, dim, parts, r))});
    }
    return plan_of(ranks).at(0).layout;
  };
  EXPECT_EQ(layout_of({1024, 1024}, 1, 4), Layout::chunked);
  EXPECT_EQ(layout_of({1024, 1024}, 0, 4), Layout::contiguous);  // rows are runs already
  EXPECT_EQ(layout_of({1024, 1024}, 1, 3), Layout::contiguous);  // uneven
  EXPECT_EQ(layout_of({16, 16}, 1, 4), Layout::contiguous);      // small
}

TEST(StructureHash, DependsOnNamesDtypesShapesAndNothingElse) {
  const auto hash_of = [](int parts, const Shape& shape) {
    std::vector<std::vector<TensorView>> ranks;
    for (int r = 0; r < parts; ++r) {
      ranks.push_back({piece("model/w", Placement::split(shape, 0, parts, r))});
    }
    return structure_hash(plan_of(ranks));
  };
  EXPECT_EQ(hash_of(1, {8, 2}), hash_of(4, {8, 2}));
  EXPECT_NE(hash_of(1, {8, 2}), hash_of(1, {2, 8}));
}

}  // namespace
}  // namespace cairn::detail
