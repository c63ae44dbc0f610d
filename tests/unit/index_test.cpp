#include "formats/hdf5/index.hpp"

#include <gtest/gtest.h>

#include <random>

#include "cairn/error.hpp"

namespace cairn::detail {
namespace {

std::vector<TensorEntry> some_tensors() {
  TensorEntry rows;
  rows.name = "model/rows";
  rows.dtype = DType::bf16;
  rows.shape = {6, 4};
  rows.placement = Placement::Kind::block;
  rows.offset = 4096;
  for (std::uint64_t r = 0; r < 3; ++r) {
    Extent extent;
    extent.offset = 4096 + r * 16;
    extent.box = {{2 * r, 0}, {2, 4}};
    extent.digest = 1000 + r;
    extent.writer = static_cast<int>(r);
    rows.extents.push_back(extent);
  }
  TensorEntry flat = rows;
  flat.name = "model/flat";
  flat.placement = Placement::Kind::flat;
  flat.extents.resize(1);
  flat.extents[0].flat = true;
  flat.extents[0].box = {{0}, {24}};
  TensorEntry scalar;
  scalar.name = "model/scalar";
  scalar.extents.emplace_back().digest = 5;
  return {rows, flat, scalar};
}

TEST(Index, ComesBackAsItWas) {
  const auto before = some_tensors();
  const auto bytes = encode_index(before);
  EXPECT_EQ(bytes.size(), index_bytes(before));
  const auto after = decode_index(bytes);
  ASSERT_EQ(after.size(), before.size());
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(after[i].name, before[i].name);
    EXPECT_EQ(after[i].dtype, before[i].dtype);
    EXPECT_EQ(after[i].shape, before[i].shape);
    EXPECT_EQ(after[i].placement, before[i].placement);
    ASSERT_EQ(after[i].extents.size(), before[i].extents.size());
    for (std::size_t e = 0; e < before[i].extents.size(); ++e) {
      EXPECT_EQ(after[i].extents[e].box, before[i].extents[e].box);
      EXPECT_EQ(after[i].extents[e].digest, before[i].extents[e].digest);
      EXPECT_EQ(after[i].extents[e].writer, before[i].extents[e].writer);
    }
  }
}

TEST(Index, DamageIsAnErrorAndNeverACrash) {
  const auto good = encode_index(some_tensors());
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    auto bad = good;
    for (int flips = 1 + round % 3; flips > 0; --flips) {
      bad[random() % bad.size()] ^= static_cast<std::byte>(1U << random() % 8);
    }
    if (round % 5 == 0) bad.resize(random() % bad.size());
    try {
      decode_index(bad);
    } catch (const Error& error) {
      EXPECT_NE(error.code(), Errc::internal) << error.what();
    }
  }
}

}  // namespace
}  // namespace cairn::detail
