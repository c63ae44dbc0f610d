#include "formats/pickle/pickler.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <limits>
#include <utility>

#include "base/throw.hpp"
#include "formats/pickle/scanner.hpp"

namespace cairn::detail::pickle {
namespace {

constexpr std::size_t kMostDigits = 600;  // LONG1 has a byte for the number of bytes

void put(std::string& out, Op op) { out += static_cast<char>(op); }

/// Little-endian two's complement of a decimal number.
std::string twos_complement(std::string_view decimal) {
  const bool negative = decimal.starts_with('-');
  std::string_view digits = decimal.substr(negative ? 1 : 0);
  if (digits.empty() || digits.size() > kMostDigits ||
      digits.find_first_not_of("0123456789") != std::string_view::npos) {
    fail(Errc::unsupported, "'{}' is no number that can be written", decimal.substr(0, 40));
  }
  std::string bytes;
  for (const char digit : digits) {
    unsigned carry = static_cast<unsigned>(digit - '0');
    for (char& byte : bytes) {
      carry += static_cast<unsigned char>(byte) * 10U;
      byte = static_cast<char>(carry & 0xff);
      carry >>= 8;
    }
    if (carry != 0) bytes += static_cast<char>(carry);
  }
  bytes += '\0';  // the sign
  if (!negative) return bytes;
  unsigned carry = 1;
  for (char& byte : bytes) {
    carry += static_cast<unsigned char>(~byte);
    byte = static_cast<char>(carry & 0xff);
    carry >>= 8;
  }
  return bytes;
}

}  // namespace

Pickler::Pickler() {
  put(out_, Op::proto);
  out_ += '\2';
}

void Pickler::number(std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out_ += static_cast<char>(value >> (8 * i) & 0xff);
}

void Pickler::none() { put(out_, Op::none); }

void Pickler::boolean(bool value) { put(out_, value ? Op::newtrue : Op::newfalse); }

void Pickler::integer(std::int64_t value) {
  if (value >= 0 && value < 256) {
    put(out_, Op::binint1);
    number(static_cast<std::uint64_t>(value), 1);
  } else if (value >= 0 && value < 65536) {
    put(out_, Op::binint2);
    number(static_cast<std::uint64_t>(value), 2);
  } else if (value >= std::numeric_limits<std::int32_t>::min() &&
             value <= std::numeric_limits<std::int32_t>::max()) {
    put(out_, Op::binint);
    number(static_cast<std::uint64_t>(value), 4);
  } else {
    put(out_, Op::long1);
    number(8, 1);
    number(static_cast<std::uint64_t>(value), 8);
  }
}

void Pickler::integer(std::string_view decimal) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(decimal.data(), decimal.data() + decimal.size(), value);
  if (error == std::errc() && end == decimal.data() + decimal.size()) return integer(value);
  const std::string bytes = twos_complement(decimal);
  put(out_, Op::long1);
  number(bytes.size(), 1);
  out_ += bytes;
}

void Pickler::real(double value) {
  put(out_, Op::binfloat);
  const auto bits = std::bit_cast<std::uint64_t>(value);
  for (int i = 7; i >= 0; --i) out_ += static_cast<char>(bits >> (8 * i) & 0xff);
}

void Pickler::text(std::string_view value) {
  if (value.size() > std::numeric_limits<std::uint32_t>::max()) {
    fail(Errc::unsupported, "a text of {} bytes is too long for a pickle", value.size());
  }
  put(out_, Op::binunicode);
  number(value.size(), 4);
  out_ += value;
}

void Pickler::shared_text(std::string_view value) {
  std::string name(value);
  if (recall(name)) return;
  text(value);
  keep(std::move(name));
}

void Pickler::global(std::string_view module, std::string_view name) {
  std::string both = fmt::format("{}\n{}\n", module, name);
  if (recall(both)) return;
  put(out_, Op::global);
  out_ += both;
  keep(std::move(both));
}

bool Pickler::recall(const std::string& name) {
  const auto found = kept_.find(name);
  if (found == kept_.end()) return false;
  put(out_, Op::binget);
  number(found->second, 1);
  return true;
}

void Pickler::keep(std::string name) {
  if (kept_.size() > std::numeric_limits<std::uint8_t>::max()) return;
  const auto slot = static_cast<std::uint32_t>(kept_.size());
  put(out_, Op::binput);
  number(slot, 1);
  kept_.emplace(std::move(name), slot);
}

void Pickler::empty_dict() { put(out_, Op::empty_dict); }
void Pickler::empty_list() { put(out_, Op::empty_list); }
void Pickler::empty_tuple() { put(out_, Op::empty_tuple); }
void Pickler::mark() { put(out_, Op::mark); }
void Pickler::set_items() { put(out_, Op::setitems); }
void Pickler::append() { put(out_, Op::appends); }
void Pickler::tuple() { put(out_, Op::tuple); }
void Pickler::reduce() { put(out_, Op::reduce); }
void Pickler::persistent() { put(out_, Op::binpersid); }

std::string Pickler::take() {
  put(out_, Op::stop);
  return std::move(out_);
}

}  // namespace cairn::detail::pickle
