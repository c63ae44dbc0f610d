#include "formats/pickle/scanner.hpp"

#include <bit>
#include <charconv>
#include <cstring>

#include "base/throw.hpp"

namespace cairn::detail::pickle {

Scanner::Scanner(std::span<const std::byte> bytes, std::string_view what)
    : bytes_(reinterpret_cast<const char*>(bytes.data()), bytes.size()), what_(what) {}

std::string Scanner::where() const { return fmt::format("{}, byte {}", what_, start_); }

bool Scanner::next(Instruction& instruction) {
  start_ = at_;
  if (at_ == bytes_.size()) return false;
  instruction = {};
  instruction.op = static_cast<Op>(bytes_[at_++]);
  return argument(instruction);
}

bool Scanner::take(std::uint64_t count, std::string_view& raw) {
  if (count > bytes_.size() - at_) return false;
  raw = bytes_.substr(at_, count);
  at_ += count;
  return true;
}

bool Scanner::take_line(std::string_view& line) {
  const std::size_t end = bytes_.find('\n', at_);
  if (end == std::string_view::npos) return false;
  line = bytes_.substr(at_, end - at_);
  at_ = end + 1;
  return true;
}

bool Scanner::take_unsigned(unsigned width, std::uint64_t& value) {
  std::string_view raw;
  if (!take(width, raw)) return false;
  value = 0;
  std::memcpy(&value, raw.data(), width);
  return true;
}

bool Scanner::take_counted(unsigned width, std::string_view& raw) {
  std::uint64_t count = 0;
  return take_unsigned(width, count) && take(count, raw);
}

std::int64_t Scanner::number_of(std::string_view text) const {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    fail(Errc::corrupt, "{}: '{}' is no number", where(), text.substr(0, 40));
  }
  return value;
}

bool Scanner::argument(Instruction& in) {
  std::uint64_t number = 0;
  const auto unsigned_number = [&](unsigned width) {
    if (!take_unsigned(width, number)) return false;
    in.number = static_cast<std::int64_t>(number);
    return true;
  };
  switch (in.op) {
    case Op::mark:
    case Op::stop:
    case Op::pop:
    case Op::pop_mark:
    case Op::dup:
    case Op::none:
    case Op::binpersid:
    case Op::reduce:
    case Op::append:
    case Op::build:
    case Op::dict:
    case Op::empty_dict:
    case Op::appends:
    case Op::list:
    case Op::empty_list:
    case Op::obj:
    case Op::setitem:
    case Op::tuple:
    case Op::empty_tuple:
    case Op::setitems:
    case Op::newobj:
    case Op::tuple1:
    case Op::tuple2:
    case Op::tuple3:
    case Op::newtrue:
    case Op::newfalse:
    case Op::empty_set:
    case Op::additems:
    case Op::frozenset:
    case Op::newobj_ex:
    case Op::stack_global:
    case Op::memoize:
    case Op::next_buffer:
    case Op::readonly_buffer:
      return true;
    case Op::float_text:
    case Op::int_text:
    case Op::long_text:
    case Op::persid:
    case Op::string:
    case Op::unicode:
      return take_line(in.text);
    case Op::get:
    case Op::put:
      if (!take_line(in.text)) return false;
      in.number = number_of(in.text);
      return true;
    case Op::global:
    case Op::inst:
      return take_line(in.text) && take_line(in.name);
    case Op::binint:
      if (!take_unsigned(4, number)) return false;
      in.number = static_cast<std::int32_t>(static_cast<std::uint32_t>(number));
      return true;
    case Op::binint1:
    case Op::binget:
    case Op::binput:
    case Op::proto:
    case Op::ext1:
      return unsigned_number(1);
    case Op::binint2:
    case Op::ext2:
      return unsigned_number(2);
    case Op::long_binget:
    case Op::long_binput:
    case Op::ext4:
      return unsigned_number(4);
    case Op::binfloat: {
      std::string_view raw;
      if (!take(8, raw)) return false;
      for (const char byte : raw) number = number << 8 | static_cast<unsigned char>(byte);
      in.real = std::bit_cast<double>(number);
      return true;
    }
    case Op::short_binstring:
    case Op::short_binbytes:
    case Op::short_binunicode:
    case Op::long1:
      return take_counted(1, in.text);
    case Op::binstring:
    case Op::long4:
      // Signed counts: a negative one is no end of the stream but nonsense.
      if (!take_unsigned(4, number)) return false;
      if (number >> 31 != 0) fail(Errc::corrupt, "{}: a negative length", where());
      return take(number, in.text);
    case Op::binunicode:
    case Op::binbytes:
      return take_counted(4, in.text);
    case Op::binunicode8:
    case Op::binbytes8:
    case Op::bytearray8:
      return take_counted(8, in.text);
    case Op::frame:
      // What follows are ordinary instructions; the frame only promises that they are there.
      return take_unsigned(8, number) && number <= bytes_.size() - at_;
  }
  fail(Errc::corrupt, "{}: no opcode 0x{:02x} exists", where(), static_cast<unsigned>(in.op));
}

std::optional<std::size_t> length_of(std::span<const std::byte> bytes, std::string_view what) {
  Scanner scanner(bytes, what);
  Instruction instruction;
  while (scanner.next(instruction)) {
    if (instruction.op == Op::stop) return scanner.position();
  }
  return std::nullopt;
}

}  // namespace cairn::detail::pickle
