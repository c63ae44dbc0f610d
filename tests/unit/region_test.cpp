#include "plan/region.hpp"

#include <gtest/gtest.h>

#include <set>

#include "plan/slices.hpp"

namespace cairn::detail {
namespace {

std::set<std::uint64_t> linear_indices(const Box& box, const Shape& shape) {
  std::set<std::uint64_t> all;
  const Region bytes = dense_region(shape, false, Box::whole(shape), 0, 1);
  for_each_run(box, bytes, bytes, 1, [&](std::uint64_t at, std::uint64_t, std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) all.insert(at + i);
  });
  return all;
}

TEST(FlatToBoxes, CoversExactlyTheRangeInOrder) {
  const Shape shape{3, 4, 5};
  for (std::uint64_t start = 0; start < 60; ++start) {
    for (std::uint64_t count = 1; start + count <= 60; ++count) {
      const auto boxes = flat_to_boxes(shape, start, count);
      ASSERT_LE(boxes.size(), 5U);
      std::uint64_t next = start;
      for (const Box& box : boxes) {
        const auto indices = linear_indices(box, shape);
        ASSERT_EQ(*indices.begin(), next);
        ASSERT_EQ(*indices.rbegin(), next + box.elements() - 1);
        next += box.elements();
      }
      ASSERT_EQ(next, start + count);
    }
  }
}

TEST(FlatToBoxes, AScalarHasOneElementAndNoRangeHasNone) {
  EXPECT_EQ(flat_to_boxes({}, 0, 1).size(), 1U);
  EXPECT_TRUE(flat_to_boxes({4, 4}, 7, 0).empty());
}

TEST(IsContiguous, KnowsRowMajorRuns) {
  const Shape shape{4, 6, 2};
  EXPECT_TRUE(is_contiguous({{1, 0, 0}, {2, 6, 2}}, shape));
  EXPECT_TRUE(is_contiguous({{1, 2, 0}, {1, 3, 2}}, shape));
  EXPECT_FALSE(is_contiguous({{1, 2, 0}, {2, 3, 2}}, shape));
  EXPECT_FALSE(is_contiguous({{0, 0, 0}, {4, 6, 1}}, shape));
  EXPECT_TRUE(is_contiguous({{}, {}}, {}));
}

TEST(FirstOfRun, IsWhereARunStarts) {
  const Shape shape{4, 6, 2};
  EXPECT_EQ(first_of_run(Placement::replicated(shape)), 0U);
  EXPECT_EQ(first_of_run(Placement::block(shape, {{1, 2, 0}, {1, 3, 2}})), 16U);
  EXPECT_EQ(first_of_run(Placement::block(shape, {{0, 0, 0}, {4, 6, 1}})), std::nullopt);
  EXPECT_EQ(first_of_run(Placement::flat(shape, 5, 7)), 5U);
  EXPECT_EQ(first_of_run(Placement::replicated({})), 0U);
}

TEST(Slices, KeepOrderAndLimit) {
  const Box box{{1, 2, 3}, {4, 5, 6}};
  for (std::uint64_t most = 1; most <= 130; ++most) {
    std::uint64_t elements = 0;
    for (const Box& slice : slices_of(box, most)) {
      EXPECT_LE(slice.elements(), most);
      EXPECT_TRUE(intersect(slice, box).has_value());
      elements += slice.elements();
    }
    EXPECT_EQ(elements, box.elements());
  }
}

TEST(Intersect, IsEmptyWhereBoxesOnlyTouch) {
  EXPECT_FALSE(intersect({{0}, {4}}, {{4}, {4}}).has_value());
  EXPECT_EQ(intersect({{0, 1}, {4, 4}}, {{2, 0}, {9, 3}}), (Box{{2, 1}, {2, 2}}));
}

TEST(OrderByStrides, FileOrderComesFirstAndRepeatsOutermost) {
  // A transposed 2 x 3 view of six elements of 4 bytes, repeated twice.
  const Shape shape{2, 3, 2};
  Box box = Box::whole(shape);
  Region file{{}, 100, {0, 4, 12}};
  Region memory = dense_region(shape, false, box, 0, 4);
  order_by_strides(box, file, memory);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> runs;
  for_each_run(box, file, memory, 4, [&](std::uint64_t at, std::uint64_t to, std::uint64_t bytes) {
    EXPECT_EQ(bytes, 4U);
    runs.emplace_back(at, to);
  });
  ASSERT_EQ(runs.size(), 12U);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    EXPECT_EQ(runs[i].first, 100 + 4 * (i % 6)) << i;
    // Element (r, j, k) lies at 12 k + 4 j of the file and 24 r + 8 j + 4 k of the memory.
    const std::size_t r = i / 6, k = i % 6 / 3, j = i % 3;
    EXPECT_EQ(runs[i].second, 24 * r + 8 * j + 4 * k) << i;
  }
}

}  // namespace
}  // namespace cairn::detail
