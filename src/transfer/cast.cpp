#include "transfer/cast.hpp"

#include <bit>
#include <cfenv>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "base/throw.hpp"
#include "manifest/small_floats.hpp"

namespace cairn::detail {
namespace {

// How the elements of a float type lie in memory, and what they are. Everything but f64 is exactly
// an f32, so that rounding happens once, in the step to the target.
struct F64 {
  using Bits = std::uint64_t;
  static double value(Bits bits) { return std::bit_cast<double>(bits); }
};
struct F32 {
  using Bits = std::uint32_t;
  static float value(Bits bits) { return std::bit_cast<float>(bits); }
};
struct F16 {
  using Bits = std::uint16_t;
  static float value(Bits bits) { return f16_value(bits); }
};
struct BF16 {
  using Bits = std::uint16_t;
  static float value(Bits bits) { return bf16_value(bits); }
};
struct F8E4M3 {
  using Bits = std::uint8_t;
  static float value(Bits bits) { return f8_e4m3fn_value(bits); }
};
struct F8E5M2 {
  using Bits = std::uint8_t;
  static float value(Bits bits) { return f8_e5m2_value(bits); }
};

/// The f32 next to `value`, inexact ones with an odd last bit ("round to odd"): rounding that to 22
/// bits or fewer gives what rounding `value` itself would.
float to_odd(double value) {
  const auto near = static_cast<float>(value);
  auto bits = std::bit_cast<std::uint32_t>(near);
  if (near == value || std::isnan(value) || (bits & 1U) != 0) return near;
  // Magnitudes grow with their bits, across all exponents.
  if (std::abs(static_cast<double>(near)) < std::abs(value)) {
    ++bits;
  } else {
    --bits;
  }
  return std::bit_cast<float>(bits);
}
float to_odd(float value) { return value; }

void store(F64, double value, std::uint64_t& bits) { bits = std::bit_cast<std::uint64_t>(value); }

template <class T>
void store(F32, T value, std::uint32_t& bits) {
  bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
}

template <class T>
void store(BF16, T value, std::uint16_t& bits) {
  const auto wide = std::bit_cast<std::uint32_t>(to_odd(value));
  const std::uint32_t rounded = wide + 0x7fff + (wide >> 16 & 1U);
  const bool nan = (wide & 0x7fffffff) > 0x7f800000;
  bits = static_cast<std::uint16_t>((nan ? wide | 0x400000 : rounded) >> 16);
}

template <class T>
void store(F16, T value, std::uint16_t& bits) {
  constexpr std::uint32_t kInfinity = 0x7f800000;  // of f32
  constexpr std::uint32_t kOverflow = 0x477ff000;  // 65520: from here on nearer to infinity
  constexpr std::uint32_t kNormal = 0x38800000;    // 2^-14, the smallest normal f16
  const auto wide = std::bit_cast<std::uint32_t>(to_odd(value));
  const std::uint32_t sign = wide >> 16 & 0x8000;
  const std::uint32_t magnitude = wide & 0x7fffffff;
  std::uint32_t half = 0;
  if (magnitude > kInfinity) {
    half = 0x7e00 | (magnitude >> 13 & 0x3ff);
  } else if (magnitude >= kOverflow) {
    half = 0x7c00;
  } else if (magnitude >= kNormal) {
    half = (magnitude + 0xfff + (magnitude >> 13 & 1U) - (112U << 23)) >> 13;
  } else {
    // Beside 0.5 the steps of f32 are those of subnormal f16, so that the sum rounds to them.
    const float sum = std::bit_cast<float>(magnitude) + 0.5F;
    half = std::bit_cast<std::uint32_t>(sum) - std::bit_cast<std::uint32_t>(0.5F);
  }
  bits = static_cast<std::uint16_t>(sign | half);
}

template <class From, class To>
void cast_floats(const std::byte* in, std::byte* out, std::uint64_t elements) {
  for (std::uint64_t i = 0; i < elements; ++i) {
    typename From::Bits from{};
    typename To::Bits to{};
    std::memcpy(&from, in + i * sizeof(from), sizeof(from));
    store(To{}, From::value(from), to);
    std::memcpy(out + i * sizeof(to), &to, sizeof(to));
  }
}

/// Calls `found(type)`; false where the dtype is no float.
template <class Found>
bool with_float(DType dtype, Found&& found) {
  switch (dtype) {
    case DType::f64:
      found(F64{});
      return true;
    case DType::f32:
      found(F32{});
      return true;
    case DType::f16:
      found(F16{});
      return true;
    case DType::bf16:
      found(BF16{});
      return true;
    case DType::f8_e4m3fn:
      found(F8E4M3{});
      return true;
    case DType::f8_e5m2:
      found(F8E5M2{});
      return true;
    default:
      return false;
  }
}

/// Calls `found(zero of the type)`; false where the dtype is no integer.
template <class Found>
bool with_integer(DType dtype, Found&& found) {
  switch (dtype) {
    case DType::i64:
      found(std::int64_t{});
      return true;
    case DType::i32:
      found(std::int32_t{});
      return true;
    case DType::i16:
      found(std::int16_t{});
      return true;
    case DType::i8:
      found(std::int8_t{});
      return true;
    case DType::u64:
      found(std::uint64_t{});
      return true;
    case DType::u32:
      found(std::uint32_t{});
      return true;
    case DType::u16:
      found(std::uint16_t{});
      return true;
    case DType::u8:
      found(std::uint8_t{});
      return true;
    default:
      return false;
  }
}

template <class From, class To, class Each>
std::optional<Misfit> visit_integers(const std::byte* in, std::uint64_t elements, Each&& each) {
  for (std::uint64_t i = 0; i < elements; ++i) {
    From from{};
    std::memcpy(&from, in + i * sizeof(from), sizeof(from));
    if (!std::in_range<To>(from)) return Misfit{i, fmt::format("{}", from)};
    each(i, static_cast<To>(from));
  }
  return std::nullopt;
}

bool is_float(DType dtype) {
  return with_float(dtype, [](auto) {});
}
bool is_integer(DType dtype) {
  return with_integer(dtype, [](auto) {});
}
bool is_float_target(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

/// The default floating-point environment: rounds to nearest, keeps subnormals and raises nothing.
/// Trainers may have set another one.
class DefaultFloats {
 public:
  DefaultFloats() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloats() { std::fesetenv(&before_); }
  DefaultFloats(const DefaultFloats&) = delete;
  DefaultFloats& operator=(const DefaultFloats&) = delete;

 private:
  std::fenv_t before_{};
};

template <class From>
void cast_from(const std::byte* in, DType to, std::byte* out, std::uint64_t elements) {
  if (to == DType::f64) return cast_floats<From, F64>(in, out, elements);
  if (to == DType::f32) return cast_floats<From, F32>(in, out, elements);
  if (to == DType::f16) return cast_floats<From, F16>(in, out, elements);
  cast_floats<From, BF16>(in, out, elements);
}

std::optional<Misfit> cast_integers(DType from, const std::byte* in, DType to, std::byte* out,
                                    std::uint64_t elements) {
  std::optional<Misfit> misfit;
  with_integer(from, [&](auto source) {
    with_integer(to, [&](auto target) {
      using Source = decltype(source);
      using Target = decltype(target);
      misfit = visit_integers<Source, Target>(in, elements, [&](std::uint64_t i, Target value) {
        if (out != nullptr) std::memcpy(out + i * sizeof(value), &value, sizeof(value));
      });
    });
  });
  return misfit;
}

}  // namespace

bool can_cast(DType from, DType to) {
  return (is_float(from) && is_float_target(to)) || (is_integer(from) && is_integer(to));
}

bool may_not_fit(DType from, DType to) {
  bool may_not = false;
  with_integer(from, [&](auto source) {
    with_integer(to, [&](auto target) {
      using Limits = std::numeric_limits<decltype(source)>;
      may_not = !std::in_range<decltype(target)>(Limits::min()) ||
                !std::in_range<decltype(target)>(Limits::max());
    });
  });
  return may_not;
}

std::optional<Misfit> find_misfit(DType from, DType to, std::span<const std::byte> from_bytes) {
  return cast_integers(from, from_bytes.data(), to, nullptr, from_bytes.size() / item_bytes(from));
}

void cast_elements(DType from, const std::byte* from_bytes, DType to, std::byte* to_bytes,
                   std::uint64_t elements) {
  if (!can_cast(from, to)) {
    fail(Errc::internal, "no cast from {} to {}", to_string(from), to_string(to));
  }
  if (is_integer(from)) {
    if (const auto misfit = cast_integers(from, from_bytes, to, to_bytes, elements)) {
      fail(Errc::mismatch, "the value {} does not fit into {}", misfit->value, to_string(to));
    }
    return;
  }
  const DefaultFloats floats;
  with_float(from,
             [&](auto type) { cast_from<decltype(type)>(from_bytes, to, to_bytes, elements); });
}

}  // namespace cairn::detail
