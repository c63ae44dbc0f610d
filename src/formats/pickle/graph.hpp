#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "formats/pickle/containers.hpp"
#include "formats/pickle/globals.hpp"

namespace cairn::detail::pickle {

enum class Kind : std::uint8_t {
  none,
  boolean,
  integer,
  big_integer,  ///< beyond 64 bits: little-endian two's complement
  real,
  complex,
  text,
  bytes,
  bytearray,
  tuple,
  list,
  set,
  frozenset,
  dict,  ///< and OrderedDict, defaultdict, Counter
  global,
  object,      ///< of a class, or the result of a function, neither of which was called
  persistent,  ///< what the writer kept outside the pickle: a tensor's storage
};

/// A class or function by name.
struct Global {
  std::string module;  ///< as written: Python 2's names stay
  std::string name;
  Class cls = Class::unknown;

  /// "module.name", as they are called today.
  std::string qualified() const;
};

/// How Python would have made an object, had anybody let it.
struct Object {
  Ref callee = kNoRef;  ///< a global, or (getattr(Outer, "Inner")) an object
  Ref args = kNoRef;    ///< a tuple
  Ref kwargs = kNoRef;  ///< a dict, or nothing
  Ref state = kNoRef;   ///< what BUILD would have set
  // What was added to a list's, set's or dict's subclass, as the graph numbers it: few have that.
  std::uint32_t items = kNoRef;
  std::uint32_t pairs = kNoRef;
  bool called = false;  ///< callee(*args); otherwise callee.__new__(callee, *args)
};

/// The values of a pickle. They refer to each other by position, in any way, cycles included:
/// nothing in here recurses. Lifetime: a value type that owns its bytes; views into it live as long
/// as it does, moved or not. All members are Local.
class Graph {
 public:
  Ref root() const { return root_; }
  std::size_t size() const { return values_.size(); }
  Kind kind(Ref ref) const { return values_[ref].kind; }
  /// Of containers, globals and objects that are known.
  Class class_of(Ref ref) const;

  bool boolean(Ref ref) const { return values_[ref].bits != 0; }
  std::int64_t integer(Ref ref) const { return static_cast<std::int64_t>(values_[ref].bits); }
  double real(Ref ref) const;
  /// Decimal digits of an integer, big ones too.
  std::string decimal(Ref ref) const;
  /// Of a text, bytes, a bytearray or a big integer.
  std::string_view text(Ref ref) const {
    return {reinterpret_cast<const char*>(values_[ref].bits), values_[ref].count};
  }
  /// Elements of a tuple, list or set; the two parts of a complex.
  std::span<const Ref> elements(Ref ref) const;
  /// Key, value, key, value, ... of a dict; no key twice.
  std::span<const Ref> pairs(Ref ref) const;
  const Global& global(Ref ref) const { return globals_[values_[ref].count]; }
  const Object& object(Ref ref) const { return objects_[values_[ref].count]; }
  /// What was appended to an object of a list's or set's subclass.
  std::span<const Ref> items_of(const Object& object) const { return added(object.items); }
  /// What was set in an object of a dict's subclass: key, value, key, value, ...
  std::span<const Ref> pairs_of(const Object& object) const { return added(object.pairs); }
  /// What the writer said about the thing outside: usually a tuple.
  Ref persistent_id(Ref ref) const { return values_[ref].count; }

  bool is_text(Ref ref, std::string_view text) const {
    return kind(ref) == Kind::text && this->text(ref) == text;
  }
  /// The value of a text key of a dict, or nothing. Quick in large ones, too.
  std::optional<Ref> find(Ref dict, std::string_view key) const;
  /// The values that a value refers to, in the order of the stream; for a walk of all.
  Ref child(Ref ref, std::size_t index) const;
  /// Whether it refers to no other.
  bool is_leaf(Ref ref) const {
    const Kind kind = this->kind(ref);
    return (kind < Kind::tuple && kind != Kind::complex) || kind == Kind::global;
  }
  /// All names in the pickle, each once, in the order of the stream.
  std::span<const Global> globals() const { return globals_; }

 private:
  friend class Machine;

  struct Value {
    Kind kind = Kind::none;
    Class cls = Class::unknown;
    std::uint32_t count = 0;  // elements or bytes; or a position in one of the tables
    std::uint64_t bits = 0;   // the number, the position of a tuple's elements, or a text's address
  };
  static_assert(sizeof(Value) == 16);
  struct HashedKey {
    std::uint64_t hash;   // digest_of() a text; a number
    std::uint32_t place;  // among the pairs
  };
  static constexpr std::size_t kFewPairs = 16;  // among which to look one by one

  std::span<const Ref> added(std::uint32_t container) const {
    if (container == kNoRef) return {};
    return containers_[container];
  }

  std::vector<std::byte> bytes_;
  std::deque<std::string> made_;  // texts that do not lie in bytes_ as they are
  std::vector<Value> values_;
  std::vector<Ref> elements_;  // of tuples
  Containers containers_;      // of lists, sets and dicts
  // Of dicts with more than a few pairs, by container: where the text keys are, sorted by hash.
  std::unordered_map<std::uint32_t, std::vector<HashedKey>> text_keys_;
  std::vector<Object> objects_;
  std::vector<Global> globals_;
  Ref root_ = kNoRef;
};

}  // namespace cairn::detail::pickle
