#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <string_view>

#include "base/crc64.hpp"
#include "plan/part_digest.hpp"
#include "plan/part_scan.hpp"
#include "plan/region.hpp"

namespace cairn::detail {
namespace {

std::vector<std::byte> random_bytes(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

std::uint64_t crc_of(std::span<const std::byte> bytes) {
  return ~crc64_update(~std::uint64_t{0}, bytes);
}

TEST(Crc64, HasTheCatalogueCheckValue) {
  constexpr std::string_view kCheck = "123456789";
  EXPECT_EQ(crc_of(std::as_bytes(std::span(kCheck))), 0x995dc9bbdf1939faU);
}

TEST(Crc64, SkippingIsReadingZeros) {
  const std::uint64_t state = crc64_update(~std::uint64_t{0}, random_bytes(100, 1));
  for (const std::size_t zeros : {0U, 1U, 7U, 8U, 255U, 256U, 4095U, 100'003U}) {
    const std::uint64_t expected = crc64_update(state, std::vector<std::byte>(zeros));
    EXPECT_EQ(crc64_skip(state, zeros), expected) << zeros;
    EXPECT_EQ(Crc64Skip(zeros)(state), expected) << zeros;
  }
  // Distances that nobody can read: 2^40 + 2^40 = 2^41.
  const std::uint64_t once = crc64_skip(state, 1ULL << 40);
  EXPECT_EQ(crc64_skip(once, 1ULL << 40), crc64_skip(state, 1ULL << 41));
}

TensorEntry tensor_of(DType dtype, const Shape& shape) {
  TensorEntry tensor;
  tensor.dtype = dtype;
  tensor.shape = shape;
  return tensor;
}

/// The bytes of a box of a tensor, dense.
std::vector<std::byte> cut_out(const std::vector<std::byte>& whole, const TensorEntry& tensor,
                               const Extent& extent) {
  const std::size_t item = item_bytes(tensor.dtype);
  std::vector<std::byte> part;
  for (std::uint64_t i = 0; i < element_count(tensor.shape); ++i) {
    bool inside = true;
    if (extent.flat) {
      inside = i >= extent.box.start[0] && i < extent.box.start[0] + extent.box.count[0];
    } else {
      std::uint64_t rest = i;
      for (std::size_t d = tensor.shape.size(); d-- > 0; rest /= tensor.shape[d]) {
        const std::uint64_t index = rest % tensor.shape[d];
        inside = inside && index >= extent.box.start[d] &&
                 index < extent.box.start[d] + extent.box.count[d];
      }
    }
    const auto* at = whole.data() + i * item;
    if (inside) part.insert(part.end(), at, at + item);
  }
  return part;
}

Extent flat_part(std::uint64_t start, std::uint64_t count) {
  Extent extent;
  extent.flat = true;
  extent.box = {{start}, {count}};
  return extent;
}

Extent box_part(const Shape& start, const Shape& count) {
  Extent extent;
  extent.box = {start, count};
  return extent;
}

/// Splits a box at random into boxes.
void split(const Box& box, std::mt19937& random, int depth, std::vector<Extent>& parts) {
  const std::size_t d = random() % box.count.size();
  if (depth == 0 || box.count[d] < 2) return parts.push_back(box_part(box.start, box.count));
  const std::uint64_t cut = 1 + random() % (box.count[d] - 1);
  Box low = box;
  Box high = box;
  low.count[d] = cut;
  high.start[d] += cut;
  high.count[d] -= cut;
  split(low, random, depth - 1, parts);
  split(high, random, depth - 1, parts);
}

void expect_whole_from_parts(const TensorEntry& tensor, std::vector<Extent> parts) {
  const auto whole = random_bytes(tensor.bytes(), 7);
  TensorEntry entry = tensor;
  for (Extent& extent : parts) {
    const auto bytes = cut_out(whole, tensor, extent);
    extent.digest = part_digest(tensor, extent, bytes);
    // The same in pieces of odd sizes.
    PartDigester digester(tensor, extent);
    for (std::size_t at = 0; at < bytes.size(); at += 13) {
      digester.update(std::span(bytes).subspan(at, std::min<std::size_t>(13, bytes.size() - at)));
    }
    EXPECT_EQ(digester.value(), *extent.digest);
  }
  entry.extents = parts;
  EXPECT_EQ(entry.content_digest(), crc_of(whole));
}

TEST(PartDigest, PartsGiveTheDigestOfTheWholeHoweverItIsCut) {
  std::mt19937 random(11);
  for (const Shape& shape : {Shape{1}, Shape{37}, Shape{6, 4}, Shape{5, 1, 7}, Shape{3, 4, 5, 6},
                             Shape{2, 1, 3, 1, 4}}) {
    for (const DType dtype : {DType::u8, DType::bf16, DType::f32, DType::c128}) {
      const TensorEntry tensor = tensor_of(dtype, shape);
      for (int depth = 0; depth < 6; ++depth) {
        std::vector<Extent> parts;
        split(Box::whole(shape), random, depth, parts);
        expect_whole_from_parts(tensor, parts);
      }
      const std::uint64_t elements = element_count(shape);
      const std::uint64_t cut = elements / 3;
      expect_whole_from_parts(tensor, {flat_part(cut, elements - cut), flat_part(0, cut)});
    }
  }
}

TEST(PartDigest, ScalarsAndTensorsWithoutElements) {
  expect_whole_from_parts(tensor_of(DType::f64, {}), {box_part({}, {})});
  TensorEntry empty = tensor_of(DType::f32, {0, 3});
  EXPECT_EQ(empty.content_digest(), 0U);
  empty.extents.push_back(box_part({0, 0}, {0, 3}));
  EXPECT_EQ(part_digest(empty, empty.extents[0], {}), 0U);
  EXPECT_EQ(empty.content_digest(), 0U);
}

TEST(PartDigest, WithoutTheDigestOfEveryPartThereIsNone) {
  TensorEntry tensor = tensor_of(DType::f32, {8});
  tensor.extents = {flat_part(0, 4), flat_part(4, 4)};
  tensor.extents[0].digest = 1;
  EXPECT_FALSE(tensor.content_digest().has_value());
}

TEST(PartDigest, ZerosInAnotherPlaceAreAnotherTensor) {
  // Parts of zeros all have the register 0 but the first; their sum must still tell lengths apart.
  TensorEntry longer = tensor_of(DType::u8, {9});
  TensorEntry shorter = tensor_of(DType::u8, {8});
  const std::vector<std::byte> zeros(9);
  Extent extent = flat_part(0, 9);
  extent.digest = part_digest(longer, extent, zeros);
  longer.extents = {extent};
  extent = flat_part(0, 8);
  extent.digest = part_digest(shorter, extent, std::span(zeros).first(8));
  shorter.extents = {extent};
  EXPECT_NE(longer.content_digest(), shorter.content_digest());
}

template <class T>
Statistics statistics_of(DType dtype, const std::vector<T>& elements, std::size_t step) {
  const auto bytes = std::as_bytes(std::span(elements));
  const TensorEntry tensor = tensor_of(dtype, {bytes.size() / item_bytes(dtype)});
  PartScan scan(tensor, flat_part(0, tensor.shape[0]), /*statistics=*/true);
  for (std::size_t at = 0; at < bytes.size(); at += step) {
    scan.update(bytes.subspan(at, std::min(step, bytes.size() - at)));
  }
  return scan.report().statistics;
}

template <class T>
Statistics one_by_one(const std::vector<T>& values) {
  Statistics expected;
  for (const double value : values) {
    if (std::isnan(value)) {
      ++expected.nan;
    } else if (std::isinf(value)) {
      ++expected.inf;
    } else {
      expected.min = std::min(expected.min, value);
      expected.max = std::max(expected.max, value);
      expected.sum_squares += value * value;
    }
  }
  return expected;
}

/// Pieces of any length, so that elements are split and lie at any address.
template <class T, class Stored = T>
void expect_like_one_by_one(DType dtype, const std::vector<T>& values,
                            const std::vector<Stored>& stored) {
  const Statistics expected = one_by_one(values);
  for (const std::size_t step : {1U, 7U, 64U, 1U << 20}) {
    const Statistics found = statistics_of(dtype, stored, step);
    EXPECT_EQ(found.nan, expected.nan);
    EXPECT_EQ(found.inf, expected.inf);
    EXPECT_EQ(found.min, expected.min);
    EXPECT_EQ(found.max, expected.max);
    EXPECT_NEAR(found.sum_squares / expected.sum_squares, 1, 1e-12);
  }
}

TEST(StatisticsOf, FloatsOfAnyLengthInAnyPieces) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  for (const std::size_t count : {1U, 7U, 8U, 15U, 16U, 17U, 2048U, 5000U}) {
    for (const bool finite : {true, false}) {
      std::vector<float> values(count);
      std::mt19937 random(3);
      std::normal_distribution<float> normal;
      for (float& value : values) value = normal(random);
      values[count / 3] = -8.25F;
      values[count / 2] = 9.5F;
      if (!finite && count > 10) {
        values[count - 1] = std::numeric_limits<float>::quiet_NaN();
        values[1] = -std::numeric_limits<float>::infinity();
        values[7] = std::numeric_limits<float>::infinity();
      }
      expect_like_one_by_one(DType::f32, values, values);
      const std::vector<double> wide(values.begin(), values.end());
      expect_like_one_by_one(DType::f64, wide, wide);
      std::vector<std::uint16_t> halves;
      for (float& value : values) {
        halves.push_back(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16));
        value = std::bit_cast<float>(std::uint32_t{halves.back()} << 16);
      }
      expect_like_one_by_one(DType::bf16, values, halves);
    }
  }
  const Statistics none = statistics_of(DType::f64, std::vector<double>{NAN, INFINITY}, 16);
  EXPECT_EQ(none.min, kInf);
  EXPECT_EQ(none.max, -kInf);
  EXPECT_EQ(none.sum_squares, 0);
}

TEST(StatisticsOf, EveryKindOfElement) {
  const auto expect = [](const Statistics& found, double min, double max, double squares,
                         std::uint64_t nan = 0, std::uint64_t inf = 0) {
    EXPECT_EQ(found.min, min);
    EXPECT_EQ(found.max, max);
    EXPECT_EQ(found.sum_squares, squares);
    EXPECT_EQ(found.nan, nan);
    EXPECT_EQ(found.inf, inf);
  };
  using U8 = std::vector<std::uint8_t>;
  using U16 = std::vector<std::uint16_t>;
  expect(statistics_of(DType::i8, std::vector<std::int8_t>{-128, 127, 0}, 1), -128, 127, 32513);
  expect(statistics_of(DType::u64, std::vector<std::uint64_t>{1ULL << 63, 0}, 3), 0, 0x1p63,
         0x1p126);
  expect(statistics_of(DType::i64, std::vector<std::int64_t>{-3, 4}, 5), -3, 4, 25);
  expect(statistics_of(DType::boolean, U8{0, 1, 1}, 2), 0, 1, 2);
  expect(statistics_of(DType::f64, std::vector<double>{1e-300, -2, NAN}, 9), -2, 1e-300, 4, 1);
  // Finite, and the square is not.
  expect(statistics_of(DType::f64, std::vector<double>(16, 1e200), 128), 1e200, 1e200, INFINITY);
  // Real and imaginary parts.
  expect(statistics_of(DType::c64, std::vector<float>{3, -4, INFINITY, 1}, 5), -4, 3, 26, 0, 1);
  expect(statistics_of(DType::c128, std::vector<double>{3, -4}, 5), -4, 3, 25);
  // 1, -2, largest 65504, smallest subnormal 2^-24, infinity, NaN
  expect(statistics_of(DType::f16, U16{0x3c00, 0xc000, 0x7bff, 0x0001, 0x7c00, 0x7e01}, 3), -2,
         65504, 1.0 + 4 + 65504.0 * 65504 + 0x1p-48, 1, 1);
  expect(statistics_of(DType::c32, U16{0x3c00, 0xc000}, 3), -2, 1, 5);
  expect(statistics_of(DType::bf16, U16{0x3f80, 0xc000, 0xff80, 0x7fc0}, 3), -2, 1, 5, 1, 1);
  // 1, -2, largest 448, smallest subnormal 2^-9, NaN; no infinities
  expect(statistics_of(DType::f8_e4m3fn, U8{0x38, 0xc0, 0x7e, 0x01, 0x7f}, 2), -2, 448,
         5 + 448.0 * 448 + 0x1p-18, 1);
  // 1, -2, largest 57344, smallest subnormal 2^-16, infinity, NaN
  expect(statistics_of(DType::f8_e5m2, U8{0x3c, 0xc0, 0x7b, 0x01, 0xfc, 0x7f}, 2), -2, 57344,
         5 + 57344.0 * 57344 + 0x1p-32, 1, 1);
}

}  // namespace
}  // namespace cairn::detail
