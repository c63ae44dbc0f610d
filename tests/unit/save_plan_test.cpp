#include "plan/save_plan.hpp"

#include <gtest/gtest.h>

#include "cairn/error.hpp"

namespace cairn::detail {
namespace {

TensorView piece(const std::string& name, const Placement& placement, DType dtype = DType::f32) {
  return {name, dtype, placement, nullptr};
}

std::string error_of(const std::vector<std::vector<TensorView>>& ranks, Errc code) {
  try {
    plan_save(ranks);
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
  const auto tensors = plan_save(std::vector<std::vector<TensorView>>(4, all));
  std::vector<int> written(4, 0);
  for (const TensorEntry& tensor : tensors) {
    ASSERT_EQ(tensor.extents.size(), 1U);
    ++written.at(static_cast<std::size_t>(tensor.extents[0].writer));
  }
  EXPECT_EQ(written, (std::vector<int>{2, 2, 2, 2}));
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
      plan_save(std::vector<std::vector<TensorView>>{{block({0, 0}, {1, 2}), block({1, 1}, {1, 1})},
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
    return plan_save(ranks).at(0).layout;
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
    return structure_hash(plan_save(ranks));
  };
  EXPECT_EQ(hash_of(1, {8, 2}), hash_of(4, {8, 2}));
  EXPECT_NE(hash_of(1, {8, 2}), hash_of(1, {2, 8}));
}

}  // namespace
}  // namespace cairn::detail
