#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace cairn::detail::pickle {

/// The opcodes of protocols 0 to 5; the values are the bytes of the stream.
enum class Op : std::uint8_t {
  mark = '(',
  stop = '.',
  pop = '0',
  pop_mark = '1',
  dup = '2',
  float_text = 'F',
  int_text = 'I',
  binint = 'J',
  binint1 = 'K',
  long_text = 'L',
  binint2 = 'M',
  none = 'N',
  persid = 'P',
  binpersid = 'Q',
  reduce = 'R',
  string = 'S',
  binstring = 'T',
  short_binstring = 'U',
  unicode = 'V',
  binunicode = 'X',
  append = 'a',
  build = 'b',
  global = 'c',
  dict = 'd',
  empty_dict = '}',
  appends = 'e',
  get = 'g',
  binget = 'h',
  inst = 'i',
  long_binget = 'j',
  list = 'l',
  empty_list = ']',
  obj = 'o',
  put = 'p',
  binput = 'q',
  long_binput = 'r',
  setitem = 's',
  tuple = 't',
  empty_tuple = ')',
  setitems = 'u',
  binfloat = 'G',
  proto = 0x80,
  newobj = 0x81,
  ext1 = 0x82,
  ext2 = 0x83,
  ext4 = 0x84,
  tuple1 = 0x85,
  tuple2 = 0x86,
  tuple3 = 0x87,
  newtrue = 0x88,
  newfalse = 0x89,
  long1 = 0x8a,
  long4 = 0x8b,
  binbytes = 'B',
  short_binbytes = 'C',
  short_binunicode = 0x8c,
  binunicode8 = 0x8d,
  binbytes8 = 0x8e,
  empty_set = 0x8f,
  additems = 0x90,
  frozenset = 0x91,
  newobj_ex = 0x92,
  stack_global = 0x93,
  memoize = 0x94,
  frame = 0x95,
  bytearray8 = 0x96,
  next_buffer = 0x97,
  readonly_buffer = 0x98,
};

/// One opcode and its argument.
struct Instruction {
  Op op = Op::stop;
  std::int64_t number = 0;  ///< integers, memo slots, the protocol
  double real = 0;
  std::string_view text;  ///< raw bytes in the stream: texts, bytes, long integers, a module
  std::string_view name;  ///< global and inst: the name in the module
};

/// Cuts a stream into instructions, never past its end. Lifetime: that of `bytes` and `what`, which
/// names the stream in errors. All members are Local.
class Scanner {
 public:
  /// Begins at the instruction at `start`.
  Scanner(std::span<const std::byte> bytes, std::string_view what, std::size_t start = 0);

  /// The next instruction, or false where the stream ends before it does. Errors: corrupt (no such
  /// opcode, text that is no number).
  bool next(Instruction& instruction);
  /// Bytes before the next instruction.
  std::size_t position() const { return at_; }
  /// Where the last instruction is, for an error's text: "WHAT, byte 12".
  std::string where() const;

 private:
  inline bool take(std::uint64_t count, std::string_view& raw);
  bool take_line(std::string_view& line);
  template <class T>
  bool take_unsigned(std::uint64_t& value);
  template <class T>
  bool take_number(Instruction& instruction);
  template <class T>
  bool take_counted(std::string_view& raw);
  inline bool argument(Instruction& instruction);
  std::int64_t number_of(std::string_view text) const;

  std::string_view bytes_;
  std::string_view what_;
  std::size_t at_ = 0;
  std::size_t start_ = 0;
};

/// Bytes of the pickle at the start of `bytes`, or nothing where it does not end in them. `begun`
/// is 0 at first; where more of the same bytes are there later, it says how far they were looked
/// through. Local. Errors: corrupt.
std::optional<std::size_t> length_of(std::span<const std::byte> bytes, std::string_view what,
                                     std::size_t& begun);

}  // namespace cairn::detail::pickle
