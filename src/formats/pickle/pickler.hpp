#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

namespace cairn::detail::pickle {

/// Writes a pickle of protocol 2, value by value, with no other opcodes than those that PyTorch's
/// `weights_only` reads. All members are Local.
class Pickler {
 public:
  Pickler();

  void none();
  void boolean(bool value);
  void integer(std::int64_t value);
  /// A number of any length, such as "-170141183460469231731687303715884105728". Errors:
  /// unsupported (over 600 digits).
  void integer(std::string_view decimal);
  void real(double value);
  void text(std::string_view value);
  /// A text that comes again and again: written once, then referred to.
  void shared_text(std::string_view value);
  /// A class or function by its name; written once, then referred to.
  void global(std::string_view module, std::string_view name);

  void empty_dict();
  void empty_list();
  void empty_tuple();
  void mark();
  void set_items();  ///< all keys and values since the mark, in the dict before it
  void append();     ///< all values since the mark, to the list before it
  void tuple();      ///< of all values since the mark
  void reduce();     ///< the function and the tuple before become its result
  void persistent();

  /// Ends the pickle, whose value is the last one.
  std::string take();

 private:
  void number(std::uint64_t value, int bytes);
  /// Refers to what was kept as `name`; false where there is no such thing.
  bool recall(const std::string& name);
  void keep(std::string name);

  std::string out_;
  std::unordered_map<std::string, std::uint32_t> kept_;
};

}  // namespace cairn::detail::pickle
