// How `cairn diff` compares elements of every dtype.
#include "values.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace cairn::tool {
namespace {

constexpr std::array kAll{
    DType::f64,       DType::f32,     DType::f16,     DType::bf16, DType::i64, DType::i32,
    DType::f8_e4m3fn, DType::f8_e5m2, DType::i16,     DType::i8,   DType::u8,  DType::u16,
    DType::u32,       DType::u64,     DType::boolean, DType::c128, DType::c64, DType::c32};

template <class T>
const std::byte* bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values)).data();
}

template <class T>
Difference compare_as(DType dtype, const std::vector<T>& a, const std::vector<T>& b) {
  return compare(dtype, bytes_of(a), dtype, bytes_of(b), a.size());
}

/// What `bits` of `dtype` are as a number: their distance from zero.
double number(DType dtype, std::uint16_t bits) {
  const std::vector<std::uint16_t> value{bits};
  const std::vector<double> zero{0.0};
  return compare(dtype, bytes_of(value), DType::f64, bytes_of(zero), 1).max_abs;
}

TEST(Values, SmallFloatsAreDecoded) {
  EXPECT_EQ(number(DType::f16, 0x3c00), 1.0);
  EXPECT_EQ(number(DType::f16, 0x0001), 0x1p-24);
  EXPECT_EQ(number(DType::f16, 0xfbff), 65504.0);
  EXPECT_EQ(number(DType::f16, 0x7c00), std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(number(DType::f16, 0x7e00)));
  EXPECT_EQ(number(DType::bf16, 0x4049), 3.140625);
  EXPECT_EQ(number(DType::bf16, 0x0001), 0x1p-133);
  EXPECT_EQ(number(DType::bf16, 0xff80), std::numeric_limits<double>::infinity());
  EXPECT_EQ(number(DType::f8_e4m3fn, 0x38), 1.0);
  EXPECT_EQ(number(DType::f8_e4m3fn, 0x7e), 448.0);
  EXPECT_EQ(number(DType::f8_e4m3fn, 0x78), 256.0);
  EXPECT_EQ(number(DType::f8_e4m3fn, 0x01), 0x1p-9);
  EXPECT_TRUE(std::isnan(number(DType::f8_e4m3fn, 0xff)));
  EXPECT_EQ(number(DType::f8_e5m2, 0x7b), 57344.0);
  EXPECT_EQ(number(DType::f8_e5m2, 0x01), 0x1p-16);
  EXPECT_EQ(number(DType::f8_e5m2, 0xfc), std::numeric_limits<double>::infinity());
}

TEST(Values, IntegersAreComparedWithoutRounding) {
  constexpr auto kMin = std::numeric_limits<std::int64_t>::min();
  constexpr auto kMax = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(compare_as<std::int64_t>(DType::i64, {kMin, 5}, {kMax, 5}).max_abs_integer,
            std::numeric_limits<std::uint64_t>::max());
  const auto far = compare_as<std::uint64_t>(DType::u64, {1ULL << 63}, {(1ULL << 63) + 1});
  EXPECT_EQ(far.differing, 1U);
  EXPECT_EQ(far.max_abs_integer, 1U);
  const std::vector<std::int64_t> wide{(std::int64_t{1} << 53) + 1, -3};
  const std::vector<std::int32_t> narrow{1, -3};
  const auto mixed = compare(DType::i64, bytes_of(wide), DType::i32, bytes_of(narrow), 2);
  EXPECT_EQ(mixed.differing, 1U);
  EXPECT_EQ(mixed.max_abs_integer, std::uint64_t{1} << 53);
}

TEST(Values, BitsDecideBetweenEqualDtypes) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(compare_as<float>(DType::f32, {kNan, 1}, {kNan, 1}).differing, 0U);
  const auto zeros = compare_as<float>(DType::f32, {0.0F, 1}, {-0.0F, 1});
  EXPECT_EQ(zeros.differing, 1U);
  EXPECT_EQ(zeros.max_abs, 0.0);
  EXPECT_EQ(zeros.max_rel, 0.0);
  auto sum = compare_as<float>(DType::f32, {kNan}, {1.0F});
  EXPECT_TRUE(std::isnan(sum.max_abs));
  merge(sum, compare_as<float>(DType::f32, {2.0F, 4.0F}, {2.0F, 5.0F}));
  EXPECT_EQ(sum.differing, 2U);
  EXPECT_TRUE(std::isnan(sum.max_abs));
}

TEST(Values, AbsoluteAndRelative) {
  const auto real = compare_as<double>(DType::f64, {1, 10, 100}, {2, 10, 101});
  EXPECT_EQ(real.differing, 2U);
  EXPECT_EQ(real.max_abs, 1.0);
  EXPECT_EQ(real.max_rel, 0.5);
  const auto complex = compare(DType::c64, bytes_of(std::vector<float>{1, 2, 0, 0}), DType::c64,
                               bytes_of(std::vector<float>{1, 2, 3, 4}), 2);
  EXPECT_EQ(complex.differing, 1U);
  EXPECT_EQ(complex.max_abs, 5.0);
  EXPECT_EQ(complex.max_rel, 1.0);
}

TEST(Values, EveryPairOfDtypesHasAnAnswer) {
  const std::vector<std::uint64_t> zeros(4, 0);
  for (const DType a : kAll) {
    for (const DType b : kAll) {
      EXPECT_EQ(compare(a, bytes_of(zeros), b, bytes_of(zeros), 2).differing, 0U);
    }
  }
}

}  // namespace
}  // namespace cairn::tool
