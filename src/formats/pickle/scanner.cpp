#include "formats/pickle/scanner.hpp"

#include <array>
#include <bit>
#include <charconv>
#include <cstring>
#include <initializer_list>

#include "base/throw.hpp"

namespace cairn::detail::pickle {
namespace {

/// What follows an opcode.
enum class Form : std::uint8_t {
  none,  ///< there is no such opcode
  nothing,
  line,
  line_with_number,
  two_lines,
  signed_4,
  unsigned_1,
  unsigned_2,
  unsigned_4,
  real,
  counted_1,  ///< a count of one byte, and that many bytes
  counted_4,
  counted_4_signed,
  counted_8,
  frame,
};

struct FormOfOps {
  Form form;
  std::initializer_list<Op> ops;
};

constexpr auto kForms = [] {
  std::array<Form, 256> forms{};
  for (const auto& [form, ops] : {
           FormOfOps{Form::nothing,
                     {Op::mark,        Op::stop,           Op::pop,          Op::pop_mark,
                      Op::dup,         Op::none,           Op::binpersid,    Op::reduce,
                      Op::append,      Op::build,          Op::dict,         Op::empty_dict,
                      Op::appends,     Op::list,           Op::empty_list,   Op::obj,
                      Op::setitem,     Op::tuple,          Op::empty_tuple,  Op::setitems,
                      Op::newobj,      Op::tuple1,         Op::tuple2,       Op::tuple3,
                      Op::newtrue,     Op::newfalse,       Op::empty_set,    Op::additems,
                      Op::frozenset,   Op::newobj_ex,      Op::stack_global, Op::memoize,
                      Op::next_buffer, Op::readonly_buffer}},
           FormOfOps{
               Form::line,
               {Op::float_text, Op::int_text, Op::long_text, Op::persid, Op::string, Op::unicode}},
           FormOfOps{Form::line_with_number, {Op::get, Op::put}},
           FormOfOps{Form::two_lines, {Op::global, Op::inst}},
           FormOfOps{Form::signed_4, {Op::binint}},
           FormOfOps{Form::unsigned_1, {Op::binint1, Op::binget, Op::binput, Op::proto, Op::ext1}},
           FormOfOps{Form::unsigned_2, {Op::binint2, Op::ext2}},
           FormOfOps{Form::unsigned_4, {Op::long_binget, Op::long_binput, Op::ext4}},
           FormOfOps{Form::real, {Op::binfloat}},
           FormOfOps{Form::counted_1,
                     {Op::short_binstring, Op::short_binbytes, Op::short_binunicode, Op::long1}},
           FormOfOps{Form::counted_4_signed, {Op::binstring, Op::long4}},
           FormOfOps{Form::counted_4, {Op::binunicode, Op::binbytes}},
           FormOfOps{Form::counted_8, {Op::binunicode8, Op::binbytes8, Op::bytearray8}},
           FormOfOps{Form::frame, {Op::frame}},
       }) {
    for (const Op op : ops) forms[static_cast<unsigned char>(op)] = form;
  }
  return forms;
}();

}  // namespace

Scanner::Scanner(std::span<const std::byte> bytes, std::string_view what, std::size_t start)
    : bytes_(reinterpret_cast<const char*>(bytes.data()), bytes.size()), what_(what), at_(start) {}

std::string Scanner::where() const { return fmt::format("{}, byte {}", what_, start_); }

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

template <class T>
bool Scanner::take_unsigned(std::uint64_t& value) {
  std::string_view raw;
  if (!take(sizeof(T), raw)) return false;
  T number;
  std::memcpy(&number, raw.data(), sizeof(T));
  value = number;
  return true;
}

template <class T>
bool Scanner::take_number(Instruction& instruction) {
  std::uint64_t number = 0;
  if (!take_unsigned<T>(number)) return false;
  instruction.number = static_cast<std::int64_t>(number);
  return true;
}

template <class T>
bool Scanner::take_counted(std::string_view& raw) {
  std::uint64_t count = 0;
  return take_unsigned<T>(count) && take(count, raw);
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
  switch (kForms[static_cast<unsigned char>(in.op)]) {
    case Form::nothing:
      return true;
    case Form::line:
      return take_line(in.text);
    case Form::line_with_number:
      if (!take_line(in.text)) return false;
      in.number = number_of(in.text);
      return true;
    case Form::two_lines:
      return take_line(in.text) && take_line(in.name);
    case Form::signed_4:
      if (!take_unsigned<std::uint32_t>(number)) return false;
      in.number = static_cast<std::int32_t>(static_cast<std::uint32_t>(number));
      return true;
    case Form::unsigned_1:
      return take_number<std::uint8_t>(in);
    case Form::unsigned_2:
      return take_number<std::uint16_t>(in);
    case Form::unsigned_4:
      return take_number<std::uint32_t>(in);
    case Form::real: {
      std::string_view raw;
      if (!take(8, raw)) return false;
      for (const char byte : raw) number = number << 8 | static_cast<unsigned char>(byte);
      in.real = std::bit_cast<double>(number);
      return true;
    }
    case Form::counted_1:
      return take_counted<std::uint8_t>(in.text);
    case Form::counted_4_signed:
      // A negative count is no end of the stream but nonsense.
      if (!take_unsigned<std::uint32_t>(number)) return false;
      if (number >> 31 != 0) fail(Errc::corrupt, "{}: a negative length", where());
      return take(number, in.text);
    case Form::counted_4:
      return take_counted<std::uint32_t>(in.text);
    case Form::counted_8:
      return take_counted<std::uint64_t>(in.text);
    case Form::frame:
      // What follows are ordinary instructions; the frame only promises that they are there.
      return take_unsigned<std::uint64_t>(number) && number <= bytes_.size() - at_;
    case Form::none:
      break;
  }
  fail(Errc::corrupt, "{}: no opcode 0x{:02x} exists", where(), static_cast<unsigned>(in.op));
}

bool Scanner::next(Instruction& instruction) {
  start_ = at_;
  if (at_ == bytes_.size()) return false;
  instruction = {};
  instruction.op = static_cast<Op>(bytes_[at_++]);
  return argument(instruction);
}

std::optional<std::size_t> length_of(std::span<const std::byte> bytes, std::string_view what,
                                     std::size_t& begun) {
  Scanner scanner(bytes, what, begun);
  Instruction instruction;
  while (scanner.next(instruction)) {
    begun = scanner.position();
    if (instruction.op == Op::stop) return begun;
  }
  return std::nullopt;
}

}  // namespace cairn::detail::pickle
