#include "plan/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "manifest/small_floats.hpp"

// One copy of the loop for each generation of vector units, chosen when the program starts.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__gnu_linux__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CAIRN_VECTORISED \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CAIRN_VECTORISED
#endif

namespace cairn::detail {
namespace {

constexpr std::size_t kBlock = 2048;  // elements that are looked at, and converted, at once

// Written as vectors, because the compiler makes none of the loop by itself.
template <class T, std::size_t count>
struct VectorOf {
  typedef T Type __attribute__((vector_size(count * sizeof(T))));
};
template <class T, std::size_t count>
using Vector = typename VectorOf<T, count>::Type;

template <class T>
inline __attribute__((always_inline)) T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

/// What f32 or f64 numbers show. Several vectors of each, which need not wait for each other.
template <class T>
struct Lanes {
  static constexpr std::size_t kVectors = 4;
  static constexpr std::size_t kOfVector = 16 / sizeof(T);
  static constexpr std::size_t kPairs = kOfVector / 2;
  static constexpr std::size_t kNumbers = kVectors * kOfVector;
  Vector<T, kOfVector> min[kVectors];
  Vector<T, kOfVector> max[kVectors];
  Vector<double, 2> squares[kVectors * kPairs];
};

/// Groups of Lanes<T>::kNumbers. What is not finite makes a sum of squares that is not, either.
template <class T>
inline __attribute__((always_inline)) void look(const std::byte* values, std::size_t groups,
                                                Lanes<T>& result) {
  using L = Lanes<T>;
  using Numbers = Vector<T, L::kOfVector>;
  L lanes = result;  // of its own, so that it stays in registers
  for (std::size_t g = 0; g < groups; ++g) {
#pragma GCC unroll 4
    for (std::size_t v = 0; v < L::kVectors; ++v) {
      const std::byte* from = values + (g * L::kVectors + v) * sizeof(Numbers);
      const auto numbers = load<Numbers>(from);
      lanes.min[v] = numbers < lanes.min[v] ? numbers : lanes.min[v];
      lanes.max[v] = numbers > lanes.max[v] ? numbers : lanes.max[v];
#pragma GCC unroll 2
      for (std::size_t p = 0; p < L::kPairs; ++p) {
        const auto pair = load<Vector<T, 2>>(from + p * 2 * sizeof(T));
        const auto wide = __builtin_convertvector(pair, Vector<double, 2>);
        lanes.squares[v * L::kPairs + p] += wide * wide;
      }
    }
  }
  result = lanes;
}

CAIRN_VECTORISED void look_at(const std::byte* values, std::size_t groups, Lanes<float>& lanes) {
  look(values, groups, lanes);
}
CAIRN_VECTORISED void look_at(const std::byte* values, std::size_t groups, Lanes<double>& lanes) {
  look(values, groups, lanes);
}

template <class T>
void add_one_by_one(Statistics& statistics, const std::byte* values, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const auto number = static_cast<double>(load<T>(values + i * sizeof(T)));
    if (std::isfinite(number)) {
      statistics.min = std::min(statistics.min, number);
      statistics.max = std::max(statistics.max, number);
      statistics.sum_squares += number * number;
    } else if (std::isnan(number)) {
      statistics.nan += 1;
    } else {
      statistics.inf += 1;
    }
  }
}

/// At most kBlock numbers of type T, aligned or not.
template <class T>
void add_block(Statistics& statistics, const std::byte* values, std::size_t count) {
  using L = Lanes<T>;
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  L lanes;
  for (auto& min : lanes.min) min = Vector<T, L::kOfVector>{} + kInfinity;
  for (auto& max : lanes.max) max = Vector<T, L::kOfVector>{} - kInfinity;
  for (auto& squares : lanes.squares) squares = Vector<double, 2>{};
  const std::size_t groups = count / L::kNumbers;
  look_at(values, groups, lanes);
  Statistics block;
  for (const auto& squares : lanes.squares) block.sum_squares += squares[0] + squares[1];
  if (!std::isfinite(block.sum_squares)) return add_one_by_one<T>(statistics, values, count);
  for (std::size_t v = 0; v < L::kVectors; ++v) {
    for (std::size_t l = 0; l < L::kOfVector; ++l) {
      block.min = std::min(block.min, static_cast<double>(lanes.min[v][l]));
      block.max = std::max(block.max, static_cast<double>(lanes.max[v][l]));
    }
  }
  const std::size_t done = groups * L::kNumbers;
  add_one_by_one<T>(block, values + done * sizeof(T), count - done);
  merge(statistics, block);
}

template <class T>
void add_as_they_are(Statistics& statistics, const std::byte* from, std::size_t count) {
  for (std::size_t at = 0; at < count; at += kBlock) {
    add_block<T>(statistics, from + at * sizeof(T), std::min(kBlock, count - at));
  }
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
    add_block<To>(statistics, std::as_bytes(std::span(numbers)).data(), block);
  }
}

CAIRN_VECTORISED void widen_bf16(const std::byte* from, std::size_t count, float* numbers) {
  constexpr std::size_t kOfVector = 4;
  std::size_t i = 0;
  for (; i + kOfVector <= count; i += kOfVector) {
    const auto bits = load<Vector<std::uint16_t, kOfVector>>(from + i * sizeof(std::uint16_t));
    const auto wide = __builtin_convertvector(bits, Vector<std::uint32_t, kOfVector>) << 16;
    std::memcpy(numbers + i, &wide, sizeof(wide));
  }
  for (; i < count; ++i) {
    numbers[i] = bf16_value(load<std::uint16_t>(from + i * sizeof(std::uint16_t)));
  }
}

void add_bf16(Statistics& statistics, const std::byte* from, std::size_t count) {
  float numbers[kBlock];
  for (std::size_t at = 0; at < count; at += kBlock) {
    const std::size_t block = std::min(kBlock, count - at);
    widen_bf16(from + at * sizeof(std::uint16_t), block, numbers);
    add_block<float>(statistics, std::as_bytes(std::span(numbers)).data(), block);
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
  switch (dtype_) {
    case DType::f64:
      return add_as_they_are<double>(to, elements, count);
    case DType::c128:
      return add_as_they_are<double>(to, elements, 2 * count);
    case DType::f32:
      return add_as_they_are<float>(to, elements, count);
    case DType::c64:
      return add_as_they_are<float>(to, elements, 2 * count);
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
