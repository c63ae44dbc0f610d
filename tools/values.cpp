#include "values.hpp"

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>
#include <limits>
#include <type_traits>

#include "base/throw.hpp"
#include "manifest/small_floats.hpp"

namespace cairn::tool {
namespace {

using Complex = std::complex<double>;

template <class T>
T raw(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

double f16(const std::byte* at) { return detail::f16_value(raw<std::uint16_t>(at)); }

/// Calls `body` with the function that loads an element: as std::int64_t or std::uint64_t
/// (integers), double, or Complex.
template <class F>
auto with_load(DType dtype, F&& body) {
  const auto integer = [&]<class T>(T) {
    using Wide = std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>;
    return body([](const std::byte* at) { return static_cast<Wide>(raw<T>(at)); });
  };
  switch (dtype) {
    case DType::f64:
      return body([](const std::byte* at) { return raw<double>(at); });
    case DType::f32:
      return body([](const std::byte* at) { return static_cast<double>(raw<float>(at)); });
    case DType::f16:
      return body([](const std::byte* at) { return f16(at); });
    case DType::bf16:
      return body(
          [](const std::byte* at) -> double { return detail::bf16_value(raw<std::uint16_t>(at)); });
    case DType::f8_e4m3fn:
      return body([](const std::byte* at) -> double {
        return detail::f8_e4m3fn_value(raw<std::uint8_t>(at));
      });
    case DType::f8_e5m2:
      return body([](const std::byte* at) -> double {
        return detail::f8_e5m2_value(raw<std::uint8_t>(at));
      });
    case DType::c128:
      return body(
          [](const std::byte* at) { return Complex(raw<double>(at), raw<double>(at + 8)); });
    case DType::c64:
      return body([](const std::byte* at) { return Complex(raw<float>(at), raw<float>(at + 4)); });
    case DType::c32:
      return body([](const std::byte* at) { return Complex(f16(at), f16(at + 2)); });
    case DType::i64:
      return integer(std::int64_t{});
    case DType::i32:
      return integer(std::int32_t{});
    case DType::i16:
      return integer(std::int16_t{});
    case DType::i8:
      return integer(std::int8_t{});
    case DType::u64:
      return integer(std::uint64_t{});
    case DType::u32:
      return integer(std::uint32_t{});
    case DType::u16:
      return integer(std::uint16_t{});
    case DType::u8:
    case DType::boolean:
      return integer(std::uint8_t{});
  }
  detail::fail(Errc::internal, "no way to compare elements of dtype {}", to_string(dtype));
}

bool is_signed_integer(DType dtype) {
  return dtype == DType::i64 || dtype == DType::i32 || dtype == DType::i16 || dtype == DType::i8;
}

bool is_unsigned_integer(DType dtype) {
  return dtype == DType::u64 || dtype == DType::u32 || dtype == DType::u16 || dtype == DType::u8 ||
         dtype == DType::boolean;
}

double larger(double a, double b) {
  return std::isnan(a) || std::isnan(b) ? std::numeric_limits<double>::quiet_NaN() : std::max(a, b);
}

void add(Difference& difference, double distance, double scale) {
  difference.differing += 1;
  difference.max_abs = larger(difference.max_abs, distance);
  // Two zeros of different sign are no distance apart, and an infinite distance is no ratio.
  const double relative = distance == 0 || std::isinf(distance) ? distance : distance / scale;
  difference.max_rel = larger(difference.max_rel, relative);
}

template <class T>
void add_pair(Difference& difference, T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    // Exact in unsigned arithmetic, whatever the signs.
    const std::uint64_t distance =
        a > b ? static_cast<std::uint64_t>(a) - static_cast<std::uint64_t>(b)
              : static_cast<std::uint64_t>(b) - static_cast<std::uint64_t>(a);
    difference.max_abs_integer = std::max(difference.max_abs_integer, distance);
    add(difference, static_cast<double>(distance),
        std::max(std::abs(static_cast<double>(a)), std::abs(static_cast<double>(b))));
  } else {
    add(difference, std::abs(a - b), std::max(std::abs(a), std::abs(b)));
  }
}

template <class T>
bool same_number(T a, T b) {
  return a == b || (a != a && b != b);
}

/// The function that loads an element of `dtype` as a T: Complex from any, an integer from an
/// integer.
template <class T>
auto loader(DType dtype) -> T (*)(const std::byte*) {
  return with_load(dtype, [](auto load) -> T (*)(const std::byte*) {
    using Load = decltype(load);
    using Loaded = decltype(load(nullptr));
    if constexpr (std::is_same_v<Loaded, T>) {
      return load;
    } else if constexpr (std::is_same_v<T, Complex>) {
      return [](const std::byte* at) { return Complex(static_cast<double>(Load{}(at)), 0); };
    } else {
      return nullptr;
    }
  });
}

Difference compare_bits(DType dtype, const std::byte* a, const std::byte* b, std::uint64_t count) {
  Difference difference;
  const std::size_t item = item_bytes(dtype);
  if (std::memcmp(a, b, count * item) == 0) return difference;
  with_load(dtype, [&](auto load) {
    for (std::uint64_t i = 0; i < count; ++i, a += item, b += item) {
      if (std::memcmp(a, b, item) != 0) add_pair(difference, load(a), load(b));
    }
  });
  return difference;
}

template <class T>
Difference compare_numbers(DType a_dtype, const std::byte* a, DType b_dtype, const std::byte* b,
                           std::uint64_t count) {
  Difference difference;
  const auto load_a = loader<T>(a_dtype);
  const auto load_b = loader<T>(b_dtype);
  for (std::uint64_t i = 0; i < count; ++i, a += item_bytes(a_dtype), b += item_bytes(b_dtype)) {
    const T x = load_a(a);
    const T y = load_b(b);
    if (!same_number(x, y)) add_pair(difference, x, y);
  }
  return difference;
}

}  // namespace

bool is_exact(DType a, DType b) {
  return (is_signed_integer(a) && is_signed_integer(b)) ||
         (is_unsigned_integer(a) && is_unsigned_integer(b));
}

Difference compare(DType a_dtype, const std::byte* a, DType b_dtype, const std::byte* b,
                   std::uint64_t count) {
  if (a_dtype == b_dtype) return compare_bits(a_dtype, a, b, count);
  if (!is_exact(a_dtype, b_dtype)) return compare_numbers<Complex>(a_dtype, a, b_dtype, b, count);
  return is_signed_integer(a_dtype) ? compare_numbers<std::int64_t>(a_dtype, a, b_dtype, b, count)
                                    : compare_numbers<std::uint64_t>(a_dtype, a, b_dtype, b, count);
}

void merge(Difference& into, const Difference& part) {
  into.differing += part.differing;
  into.max_abs = larger(into.max_abs, part.max_abs);
  into.max_rel = larger(into.max_rel, part.max_rel);
  into.max_abs_integer = std::max(into.max_abs_integer, part.max_abs_integer);
}

}  // namespace cairn::tool
