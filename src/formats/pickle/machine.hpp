#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/pickle/graph.hpp"
#include "formats/pickle/parse.hpp"
#include "formats/pickle/scanner.hpp"

namespace cairn::detail::pickle {

/// Runs one pickle into a graph, see parse().
class Machine {
 public:
  Machine(std::vector<std::byte> bytes, std::string_view what, const Limits& limits);
  void run();
  /// Of two equal keys of a dict the first place and the last value stay.
  void settle_keys();
  Graph take() { return std::move(graph_); }

 private:
  // Values that every graph has, at these positions, followed by the integers below kSmall.
  static constexpr Ref kNone = 0;
  static constexpr Ref kFalse = 1;
  static constexpr Ref kTrue = 2;
  static constexpr Ref kEmptyTuple = 3;
  static constexpr Ref kZero = 4;
  static constexpr std::int64_t kSmall = 256;

  void step(const Instruction& in);
  // Each does what its opcodes say, and knows no others. There are millions of instructions, most
  // of which take less than a call.
  [[gnu::always_inline]] inline bool constant(const Instruction& in);
  [[gnu::always_inline]] inline bool text_constant(const Instruction& in);
  [[gnu::always_inline]] inline bool memory(const Instruction& in);
  [[gnu::always_inline]] inline bool object(const Instruction& in);

  // The stack. Nothing below the last mark can be reached.
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  Ref top() const;
  Ref pop();
  Ref pop(Kind kind, std::string_view as);
  void push(Ref ref);
  /// Takes the last mark away and tells how many values are above it.
  std::size_t above_mark();
  /// What the last `count` values are for.
  Ref below(std::size_t count) const;
  /// Moves the last `count` values, and what they were added to stays on top.
  void take_into(Refs& to, std::size_t count);
  void keep(std::uint64_t slot);

  void push_marked(Op op);
  void add_items(std::size_t count, Op op);
  void set_items(std::size_t count);
  void check_keys(std::size_t count) const;
  void stack_global();
  void build();

  // Making values (machine_values.cpp).
  Ref make(Kind kind, Class cls, std::uint32_t count, std::uint64_t bits);
  Ref view(Kind kind, std::string_view raw);
  Ref text(std::string_view raw) { return view(Kind::text, raw); }
  Ref made(Kind kind, std::string raw);
  Ref integer(std::int64_t value);
  Ref integer_of_text(std::string_view text);
  Ref integer_of_bytes(std::string_view raw);
  Ref make_tuple(std::size_t count);
  Ref make_container(Kind kind, Class cls);
  std::uint32_t new_container();
  /// A container that is no value of its own; made where there is none yet.
  Refs& added_to(std::uint32_t& container);
  // Keys that are texts or numbers (machine_keys.cpp).
  bool equal(Ref a, Ref b);
  bool less(Ref a, Ref b);
  bool has_equal_keys(std::span<const Ref> few);
  /// Takes repeated keys out, and tells where the texts among the keys are, by hash.
  std::vector<Graph::HashedKey> settle(Refs& pairs);
  /// Counts bytes of keys that are looked at.
  void look_at(std::string_view key);
  Ref make_object(Ref callee, Ref args, Ref kwargs, bool called);
  Ref name_global(std::string_view module, std::string_view name);
  Ref called(Ref callee, Ref args);
  Ref kept_outside(Ref id);
  Ref allocated(Ref callee, Ref args, Ref kwargs);
  Ref called_known(Class cls, std::span<const Ref> args);
  Ref reconstructed(std::span<const Ref> args);
  Ref dict_of(Class cls, std::span<const Ref> args);
  Ref bytes_of(Kind kind, std::span<const Ref> args);
  void check_attribute(Class cls, std::span<const Ref> args) const;

  /// Counts memory against the limit.
  void spend(std::uint64_t bytes);
  std::string where() const { return scanner_.where(); }
  [[noreturn]] void corrupt(std::string_view why) const;

  Graph graph_;
  Scanner scanner_;
  const Limits& limits_;
  std::uint64_t spent_ = 0;
  std::uint64_t looked_at_ = 0;
  std::vector<Ref> stack_;
  std::vector<std::uint32_t> marks_;
  std::vector<Ref> memo_;
  std::uint64_t kept_ = 0;  // slots in use
  std::map<std::pair<std::string, std::string>, Ref> named_;
};

}  // namespace cairn::detail::pickle
