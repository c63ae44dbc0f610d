#include <algorithm>
#include <charconv>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "base/throw.hpp"
#include "base/utf8.hpp"
#include "formats/pickle/machine.hpp"

namespace cairn::detail::pickle {

Machine::Machine(std::vector<std::byte> bytes, std::string_view what, const Limits& limits)
    : graph_{}, scanner_(bytes, what), limits_(limits) {
  graph_.bytes_ = std::move(bytes);  // moving leaves the bytes where the scanner sees them
  constexpr std::size_t kRoom =
      64;  // a directory of distributed checkpoints has one tiny pickle a part
  auto& values = graph_.values_;
  values.reserve(kZero + kSmall + kRoom);
  values.push_back({Kind::none, Class::unknown, 0, 0});
  values.push_back({Kind::boolean, Class::unknown, 0, 0});
  values.push_back({Kind::boolean, Class::unknown, 0, 1});
  values.push_back({Kind::tuple, Class::unknown, 0, 0});
  for (std::uint64_t i = 0; i < kSmall; ++i) {
    values.push_back({Kind::integer, Class::unknown, 0, i});
  }
}

void Machine::spend(std::uint64_t bytes) {
  spent_ += bytes;
  if (spent_ > limits_.memory_bytes) {
    fail(Errc::unsafe, "{}: its values take more than {} MiB of memory", where(),
         limits_.memory_bytes >> 20);
  }
}

void Machine::corrupt(std::string_view why) const { fail(Errc::corrupt, "{}: {}", where(), why); }

Ref Machine::top() const {
  if (stack_.size() <= floor()) corrupt("a value is missing");
  return stack_.back();
}

Ref Machine::pop() {
  const Ref ref = top();
  stack_.pop_back();
  return ref;
}

Ref Machine::pop(Kind kind, std::string_view as) {
  const Ref ref = pop();
  if (graph_.kind(ref) != kind) fail(Errc::corrupt, "{}: {} of another type", where(), as);
  return ref;
}

void Machine::push(Ref ref) {
  // A stack shrinks again: only what it grows to counts.
  if (stack_.size() == stack_.capacity()) {
    spend(std::max<std::size_t>(64, stack_.capacity()) * sizeof(Ref));
    stack_.reserve(std::max<std::size_t>(64, 2 * stack_.capacity()));
  }
  stack_.push_back(ref);
}

std::size_t Machine::above_mark() {
  if (marks_.empty()) corrupt("a mark is missing");
  const std::size_t count = stack_.size() - marks_.back();
  marks_.pop_back();
  return count;
}

void Machine::take_into(Refs& to, std::size_t count) {
  if (to.size() + count > to.capacity()) {
    const std::size_t room = std::max(to.size() + count, to.empty() ? 0 : 2 * to.size());
    const bool goes_back = to.capacity() * sizeof(Ref) > SmallPool::kSmallBytes;
    spend((room - (goes_back ? to.capacity() : 0)) * sizeof(Ref));
    to.reserve(room);
  }
  to.insert(to.end(), stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
  stack_.resize(stack_.size() - count);
}

Ref Machine::make(Kind kind, Class cls, std::uint32_t count, std::uint64_t bits) {
  auto& values = graph_.values_;
  if (values.size() == values.capacity()) {
    // The bound also keeps positions far below kNoRef.
    const std::size_t room = std::max<std::size_t>(1024, values.size() / 2 * 3);
    spend((room - values.size()) * sizeof(Graph::Value));
    values.reserve(room);
  }
  values.push_back({kind, cls, count, bits});
  return static_cast<Ref>(values.size() - 1);
}

Ref Machine::view(Kind kind, std::string_view raw) {
  if (raw.size() > UINT32_MAX) fail(Errc::unsafe, "{}: {} bytes in one value", where(), raw.size());
  return make(kind, Class::unknown, static_cast<std::uint32_t>(raw.size()),
              reinterpret_cast<std::uintptr_t>(raw.data()));
}

Ref Machine::made(Kind kind, std::string raw) {
  spend(sizeof(std::string) + raw.capacity());
  return view(kind, graph_.made_.emplace_back(std::move(raw)));
}

Ref Machine::integer(std::int64_t value) {
  if (value >= 0 && value < kSmall) return kZero + static_cast<Ref>(value);
  return make(Kind::integer, Class::unknown, 0, static_cast<std::uint64_t>(value));
}

Ref Machine::integer_of_text(std::string_view digits) {
  const std::string_view all = digits;
  if (digits.ends_with('L')) digits.remove_suffix(1);
  // Which base that is depends on who reads it.
  const std::string_view plain = digits.substr(digits.starts_with('-') ? 1 : 0);
  if (plain.size() > 1 && plain.front() == '0') {
    fail(Errc::corrupt, "{}: '{}' is no number", where(), all.substr(0, 40));
  }
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error == std::errc() && end == digits.data() + digits.size()) return integer(value);
  const bool negative = digits.starts_with('-');
  if (negative) digits.remove_prefix(1);
  const bool number = !digits.empty() && std::all_of(digits.begin(), digits.end(),
                                                     [](char c) { return c >= '0' && c <= '9'; });
  if (!number) fail(Errc::corrupt, "{}: '{}' is no number", where(), all.substr(0, 40));
  if (digits.size() > limits_.digits) {
    fail(Errc::unsafe, "{}: an integer of {} digits", where(), digits.size());
  }
  std::string raw;  // little-endian
  for (const char digit : digits) {
    unsigned carry = static_cast<unsigned>(digit - '0');
    for (char& byte : raw) {
      carry += 10U * static_cast<unsigned char>(byte);
      byte = static_cast<char>(carry);
      carry >>= 8;
    }
    if (carry != 0) raw += static_cast<char>(carry);
  }
  raw += '\0';  // room for the sign
  unsigned carry = 1;
  for (char& byte : raw) {
    if (!negative) break;
    carry += static_cast<unsigned char>(~static_cast<unsigned char>(byte));
    byte = static_cast<char>(carry);
    carry >>= 8;
  }
  return made(Kind::big_integer, std::move(raw));
}

Ref Machine::integer_of_bytes(std::string_view raw) {
  if (raw.size() <= sizeof(std::int64_t)) {
    std::uint64_t value = 0;
    std::memcpy(&value, raw.data(), raw.size());
    const std::size_t bits = 8 * raw.size();
    if (bits != 0 && bits < 64 && value >> (bits - 1) != 0) value |= ~std::uint64_t{0} << bits;
    return integer(static_cast<std::int64_t>(value));
  }
  // 2.4 decimal digits make a byte.
  if (raw.size() > limits_.digits / 12 * 5) {
    fail(Errc::unsafe, "{}: an integer of {} bytes", where(), raw.size());
  }
  return view(Kind::big_integer, raw);
}

Ref Machine::make_tuple(std::size_t count) {
  if (stack_.size() < floor() + count) corrupt("a value is missing");
  if (count == 0) return kEmptyTuple;
  auto& elements = graph_.elements_;
  const std::size_t start = elements.size();
  if (start + count > elements.capacity()) {
    const std::size_t room = std::max(start + count, std::max<std::size_t>(1024, start / 2 * 3));
    spend((room - elements.capacity()) * sizeof(Ref));
    elements.reserve(room);
  }
  elements.insert(elements.end(), stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
  stack_.resize(stack_.size() - count);
  return make(Kind::tuple, Class::unknown, static_cast<std::uint32_t>(count), start);
}

std::uint32_t Machine::new_container() {
  spend(2 * sizeof(Refs));
  return graph_.containers_.add();
}

Ref Machine::make_container(Kind kind, Class cls) { return make(kind, cls, new_container(), 0); }

Refs& Machine::added_to(std::uint32_t& container) {
  if (container == kNoRef) container = new_container();
  return graph_.containers_[container];
}

Ref Machine::make_object(Ref callee, Ref args, Ref kwargs, bool is_call) {
  spend(2 * sizeof(Object));
  Object object;
  object.callee = callee;
  object.args = args;
  object.kwargs = kwargs;
  object.called = is_call;
  graph_.objects_.push_back(std::move(object));
  return make(Kind::object, Class::unknown, static_cast<std::uint32_t>(graph_.objects_.size() - 1),
              0);
}

Ref Machine::name_global(std::string_view module, std::string_view name) {
  auto key = std::pair(std::string(module), std::string(name));
  if (const auto known = named_.find(key); known != named_.end()) return known->second;
  if (!is_utf8(module) || !is_utf8(name)) corrupt("a name is not UTF-8");
  const Class cls = class_of(module, name);
  if (cls == Class::unsafe) {
    fail(
        Errc::unsafe,
        "{}: it names '{}.{}', which runs or imports code; nothing was run. Load no such file with "
        "Python either; ask its author for a state_dict or safetensors",
        where(), module, name);
  }
  spend(2 * (sizeof(Global) + sizeof(key)) + 3 * (module.size() + name.size()));
  graph_.globals_.push_back({key.first, key.second, cls});
  const Ref ref =
      make(Kind::global, cls, static_cast<std::uint32_t>(graph_.globals_.size() - 1), 0);
  named_.emplace(std::move(key), ref);
  return ref;
}

}  // namespace cairn::detail::pickle
