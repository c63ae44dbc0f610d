#include "plan/statistics.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "manifest/small_floats.hpp"

// One copy of the loop for each generation of vector units, chosen when the program starts.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__gnu_linux__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CAIRN_VECTORISED \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), optimize("O3")))
#else
#define CAIRN_VECTORISED
#endif

namespace cairn::detail {
namespace {

constexpr std::size_t kLanes = 16;    // independent sums, so that they can be one vector
constexpr std::size_t kBlock = 2048;  // elements that are converted at once

/// What a block of f32 or f64 numbers shows. `odd` counts what is not finite.
template <class T>
struct Lanes {
  T min[kLanes];
  T max[kLanes];
  double squares[kLanes];
  std::uint32_t odd[kLanes];
};

template <class T>
inline __attribute__((always_inline)) void look(const T* values, std::size_t groups,
                                                Lanes<T>& lanes) {
  // Selected bit by bit: with conditions the compiler sees that an infinite `low` is no minimum,
  // and makes branches, which it can't turn into vectors.
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  constexpr Bits kHigh = std::bit_cast<Bits>(kInfinity);
  constexpr Bits kLow = std::bit_cast<Bits>(-kInfinity);
  constexpr Bits kNoSign = ~(kHigh ^ kLow);
  for (std::size_t g = 0; g < groups; ++g) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      const auto bits = std::bit_cast<Bits>(values[g * kLanes + l]);
      const Bits finite = Bits{0} - static_cast<Bits>((bits & kNoSign) < kHigh);  // all or none
      const T low = std::bit_cast<T>(static_cast<Bits>((bits & finite) | (kHigh & ~finite)));
      const T high = std::bit_cast<T>(static_cast<Bits>((bits & finite) | (kLow & ~finite)));
      const auto number = static_cast<double>(std::bit_cast<T>(static_cast<Bits>(bits & finite)));
      lanes.min[l] = low < lanes.min[l] ? low : lanes.min[l];
      lanes.max[l] = high > lanes.max[l] ? high : lanes.max[l];
      lanes.squares[l] += number * number;
      lanes.odd[l] += static_cast<std::uint32_t>(finite) + 1;
    }
  }
}

CAIRN_VECTORISED void look_at(const float* values, std::size_t groups, Lanes<float>& lanes) {
  look(values, groups, lanes);
}
CAIRN_VECTORISED void look_at(const double* values, std::size_t groups, Lanes<double>& lanes) {
  look(values, groups, lanes);
}

CAIRN_VECTORISED void widen_bf16(const std::uint16_t* values, std::size_t count, float* numbers) {
  for (std::size_t i = 0; i < count; ++i) numbers[i] = bf16_value(values[i]);
}

/// At most kBlock numbers.
template <class T>
void add_block(Statistics& statistics, const T* values, std::size_t count) {
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  Lanes<T> lanes;
  std::fill_n(lanes.min, kLanes, kInfinity);
  std::fill_n(lanes.max, kLanes, -kInfinity);
  std::fill_n(lanes.squares, kLanes, 0.0);
  std::fill_n(lanes.odd, kLanes, 0U);
  const std::size_t groups = count / kLanes;
  look_at(values, groups, lanes);
  Statistics block;
  for (std::size_t l = 0; l < kLanes; ++l) {
    block.min = std::min(block.min, static_cast<double>(lanes.min[l]));
    block.max = std::max(block.max, static_cast<double>(lanes.max[l]));
    block.sum_squares += lanes.squares[l];
    block.nan += lanes.odd[l];
  }
  for (std::size_t i = groups * kLanes; i < count; ++i) {
    const auto number = static_cast<double>(values[i]);
    if (!std::isfinite(number)) {
      block.nan += 1;
      continue;
    }
    block.min = std::min(block.min, number);
    block.max = std::max(block.max, number);
    block.sum_squares += number * number;
  }
  if (block.nan != 0) {
    block.inf = static_cast<std::uint64_t>(
        std::count_if(values, values + count, [](T v) { return std::isinf(v); }));
    block.nan -= block.inf;
  }
  merge(statistics, block);
}

/// Loads blocks of T, turns them into numbers of type To, and adds them.
template <class T, class To, class Convert>
void add_converted(Statistics& statistics, const std::byte* from, std::size_t count,
                   Convert&& convert) {
  T loaded[kBlock];
  To numbers[kBlock];
  for (std::size_t at = 0; at < count; at += kBlock) {
    const std::size_t block = std::min(kBlock, count - at);
    std::memcpy(loaded, from + at * sizeof(T), block * sizeof(T));
    for (std::size_t i = 0; i < block; ++i) numbers[i] = convert(loaded[i]);
    add_block(statistics, numbers, block);
  }
}

void add_bf16(Statistics& statistics, const std::byte* from, std::size_t count) {
  std::uint16_t loaded[kBlock];
  float numbers[kBlock];
  for (std::size_t at = 0; at < count; at += kBlock) {
    const std::size_t block = std::min(kBlock, count - at);
    std::memcpy(loaded, from + at * sizeof(std::uint16_t), block * sizeof(std::uint16_t));
    widen_bf16(loaded, block, numbers);
    add_block(statistics, numbers, block);
  }
}

template <class T>
void add_integers(Statistics& statistics, const std::byte* from, std::size_t count) {
  add_converted<T, double>(statistics, from, count, [](T v) { return static_cast<double>(v); });
}

}  // namespace

void merge(Statistics& into, const Statistics& part) {
  into.nan += part.nan;
  into.inf += part.inf;
  into.min = std::min(into.min, part.min);
  into.max = std::max(into.max, part.max);
  into.sum_squares += part.sum_squares;
}

void StatisticsTaker::update(std::span<const std::byte> bytes) {
  if (split_bytes_ != 0) {
    const std::size_t count = std::min(item_ - split_bytes_, bytes.size());
    std::copy_n(bytes.begin(), count, split_.begin() + static_cast<std::ptrdiff_t>(split_bytes_));
    split_bytes_ += count;
    bytes = bytes.subspan(count);
    if (split_bytes_ < item_) return;
    add(split_.data(), 1);
    split_bytes_ = 0;
  }
  add(bytes.data(), bytes.size() / item_);
  const auto rest = bytes.last(bytes.size() % item_);
  std::copy(rest.begin(), rest.end(), split_.begin());
  split_bytes_ = rest.size();
}

void StatisticsTaker::add(const std::byte* elements, std::size_t count) {
  Statistics& to = statistics_;
  const auto as_is = [](auto v) { return v; };
  switch (dtype_) {
    case DType::f64:
      return add_converted<double, double>(to, elements, count, as_is);
    case DType::c128:
      return add_converted<double, double>(to, elements, 2 * count, as_is);
    case DType::f32:
      return add_converted<float, float>(to, elements, count, as_is);
    case DType::c64:
      return add_converted<float, float>(to, elements, 2 * count, as_is);
    case DType::f16:
      return add_converted<std::uint16_t, float>(to, elements, count, f16_value);
    case DType::c32:
      return add_converted<std::uint16_t, float>(to, elements, 2 * count, f16_value);
    case DType::bf16:
      return add_bf16(to, elements, count);
    case DType::f8_e4m3fn:
      return add_converted<std::uint8_t, float>(to, elements, count, f8_e4m3fn_value);
    case DType::f8_e5m2:
      return add_converted<std::uint8_t, float>(to, elements, count, f8_e5m2_value);
    case DType::i64:
      return add_integers<std::int64_t>(to, elements, count);
    case DType::i32:
      return add_integers<std::int32_t>(to, elements, count);
    case DType::i16:
      return add_integers<std::int16_t>(to, elements, count);
    case DType::i8:
      return add_integers<std::int8_t>(to, elements, count);
    case DType::u64:
      return add_integers<std::uint64_t>(to, elements, count);
    case DType::u32:
      return add_integers<std::uint32_t>(to, elements, count);
    case DType::u16:
      return add_integers<std::uint16_t>(to, elements, count);
    case DType::u8:
    case DType::boolean:
      return add_integers<std::uint8_t>(to, elements, count);
  }
}

}  // namespace cairn::detail
