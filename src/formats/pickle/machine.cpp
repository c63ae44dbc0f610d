#include "formats/pickle/machine.hpp"

#include <bit>
#include <utility>

#include "base/throw.hpp"
#include "base/utf8.hpp"
#include "formats/pickle/texts.hpp"

namespace cairn::detail::pickle {

bool Machine::object(const Instruction& in) {
  switch (in.op) {
    case Op::global:
      push(name_global(in.text, in.name));
      return true;
    case Op::stack_global:
      stack_global();
      return true;
    case Op::inst: {
      const Ref callee = name_global(in.text, in.name);
      const Ref args = make_tuple(above_mark());
      push(called(callee, args));
      return true;
    }
    case Op::obj: {
      const std::size_t count = above_mark();
      if (count == 0) corrupt("an object without a class");
      const Ref args = make_tuple(count - 1);
      const Ref callee = pop();
      push(called(callee, args));
      return true;
    }
    case Op::reduce:
    case Op::newobj: {
      const Ref args = pop(Kind::tuple, "arguments");
      const Ref callee = pop();
      push(in.op == Op::reduce ? called(callee, args) : allocated(callee, args, kNoRef));
      return true;
    }
    case Op::newobj_ex: {
      const Ref kwargs = pop(Kind::dict, "named arguments");
      const Ref args = pop(Kind::tuple, "arguments");
      const Ref callee = pop();
      push(allocated(callee, args, kwargs));
      return true;
    }
    case Op::build:
      build();
      return true;
    case Op::persid:
      push(make(Kind::persistent, Class::unknown, text(in.text), 0));
      return true;
    case Op::binpersid:
      push(kept_outside(pop()));
      return true;
    default:
      return false;
  }
}

bool Machine::constant(const Instruction& in) {
  switch (in.op) {
    case Op::none:
      push(kNone);
      return true;
    case Op::newtrue:
    case Op::newfalse:
      push(in.op == Op::newtrue ? kTrue : kFalse);
      return true;
    case Op::binint:
    case Op::binint1:
    case Op::binint2:
      push(integer(in.number));
      return true;
    case Op::int_text:
      if (in.text == "00" || in.text == "01") {
        push(in.text == "01" ? kTrue : kFalse);
        return true;
      }
      [[fallthrough]];
    case Op::long_text:
      push(integer_of_text(in.text));
      return true;
    case Op::long1:
    case Op::long4:
      push(integer_of_bytes(in.text));
      return true;
    case Op::binfloat:
      push(make(Kind::real, Class::unknown, 0, std::bit_cast<std::uint64_t>(in.real)));
      return true;
    case Op::float_text:
      push(make(Kind::real, Class::unknown, 0,
                std::bit_cast<std::uint64_t>(real_of_text(in.text, where()))));
      return true;
    case Op::empty_tuple:
      push(kEmptyTuple);
      return true;
    case Op::empty_list:
    case Op::empty_dict:
    case Op::empty_set:
      push(make_container(in.op == Op::empty_list   ? Kind::list
                          : in.op == Op::empty_dict ? Kind::dict
                                                    : Kind::set,
                          Class::unknown));
      return true;
    default:
      return false;
  }
}

bool Machine::text_constant(const Instruction& in) {
  switch (in.op) {
    case Op::short_binunicode:
    case Op::binunicode:
    case Op::binunicode8:
      if (!is_utf8(in.text)) corrupt("a text is not UTF-8");
      push(text(in.text));
      return true;
    case Op::unicode:
      push(made(Kind::text, text_of_escapes(in.text, where())));
      return true;
    case Op::string: {
      std::string raw = bytes_of_repr(in.text, where());
      const Kind kind = is_utf8(raw) ? Kind::text : Kind::bytes;
      push(made(kind, std::move(raw)));
      return true;
    }
    case Op::binstring:
    case Op::short_binstring:  // Python 2's str is either
      push(view(is_utf8(in.text) ? Kind::text : Kind::bytes, in.text));
      return true;
    case Op::binbytes:
    case Op::short_binbytes:
    case Op::binbytes8:
      push(view(Kind::bytes, in.text));
      return true;
    case Op::bytearray8:
      push(view(Kind::bytearray, in.text));
      return true;
    default:
      return false;
  }
}

bool Machine::memory(const Instruction& in) {
  switch (in.op) {
    case Op::mark:
      spend(sizeof(std::uint32_t));
      marks_.push_back(static_cast<std::uint32_t>(stack_.size()));
      return true;
    case Op::pop:
      if (!marks_.empty() && marks_.back() == stack_.size()) {
        marks_.pop_back();
      } else {
        static_cast<void>(pop());
      }
      return true;
    case Op::pop_mark:
      stack_.resize(stack_.size() - above_mark());
      return true;
    case Op::dup:
      push(top());
      return true;
    case Op::get:
    case Op::binget:
    case Op::long_binget: {
      const auto slot = static_cast<std::uint64_t>(in.number);
      if (slot >= memo_.size() || memo_[slot] == kNoRef) corrupt("a value that was never kept");
      push(memo_[slot]);
      return true;
    }
    case Op::put:
    case Op::binput:
    case Op::long_binput:
      keep(static_cast<std::uint64_t>(in.number));
      return true;
    case Op::memoize:
      keep(kept_);
      return true;
    default:
      return false;
  }
}

void Machine::step(const Instruction& in) {
  if (memory(in) || constant(in) || object(in) || text_constant(in)) return;
  switch (in.op) {
    case Op::proto:
      if (in.number > 5) {
        fail(Errc::unsupported, "{}: pickle protocol {}; 0 to 5 are known", where(), in.number);
      }
      return;
    case Op::frame:
      return;
    case Op::stop:
      if (stack_.size() != 1 || !marks_.empty()) {
        corrupt(stack_.empty() ? "nothing is left at the end"
                               : "several values are left at the end");
      }
      graph_.root_ = pop();
      return;
    case Op::tuple1:
    case Op::tuple2:
    case Op::tuple3:
      return push(
          make_tuple(static_cast<std::size_t>(in.op) - static_cast<std::size_t>(Op::tuple1) + 1));
    case Op::tuple:
      return push(make_tuple(above_mark()));
    case Op::list:
    case Op::dict:
    case Op::frozenset:
      return push_marked(in.op);
    case Op::append:
    case Op::appends:
    case Op::additems:
      return add_items(in.op == Op::append ? 1 : above_mark(), in.op);
    case Op::setitem:
    case Op::setitems:
      return set_items(in.op == Op::setitem ? 2 : above_mark());
    case Op::ext1:
    case Op::ext2:
    case Op::ext4:
      fail(Errc::unsafe, "{}: it names a class by a number, which every program may read otherwise",
           where());
    case Op::next_buffer:
    case Op::readonly_buffer:
      fail(Errc::unsupported, "{}: some of its bytes are outside the file", where());
    default:
      corrupt("the opcode is not expected here");
  }
}

void Machine::run() {
  Instruction in;
  do {
    if (!scanner_.next(in)) corrupt("the stream ends early");
    step(in);
  } while (in.op != Op::stop);
}

void Machine::keep(std::uint64_t slot) {
  // Writers number the slots one by one; a far one is there to have a table made of that size.
  if (slot > kept_ + 65536) fail(Errc::unsafe, "{}: memo slot {} of {}", where(), slot, kept_);
  if (slot >= memo_.size()) {
    spend((slot + 1 - memo_.size()) * sizeof(Ref));
    memo_.resize(slot + 1, kNoRef);
  }
  if (memo_[slot] == kNoRef) ++kept_;
  memo_[slot] = top();
}

void Machine::push_marked(Op op) {
  const std::size_t count = above_mark();
  if (op == Op::dict && count % 2 != 0) corrupt("a key without a value");
  const Ref made = make_container(op == Op::list   ? Kind::list
                                  : op == Op::dict ? Kind::dict
                                                   : Kind::frozenset,
                                  Class::unknown);
  if (op == Op::dict) check_keys(count);
  take_into(graph_.containers_[graph_.values_[made].count], count);
  push(made);
}

Ref Machine::below(std::size_t count) const {
  if (stack_.size() <= floor() + count) corrupt("there is nothing to add to");
  return stack_[stack_.size() - count - 1];
}

void Machine::add_items(std::size_t count, Op op) {
  const Ref target = below(count);
  const Kind kind = graph_.kind(target);
  const bool fits =
      kind == Kind::object || (op == Op::additems ? kind == Kind::set : kind == Kind::list);
  if (!fits) corrupt("values are added to what holds none");
  const std::uint32_t at = graph_.values_[target].count;
  take_into(kind == Kind::object ? added_to(graph_.objects_[at].items) : graph_.containers_[at],
            count);
}

void Machine::set_items(std::size_t count) {
  if (count % 2 != 0) corrupt("a key without a value");
  const Ref target = below(count);
  const Kind kind = graph_.kind(target);
  if (kind != Kind::dict && kind != Kind::object) corrupt("keys are set in what has none");
  check_keys(count);
  const std::uint32_t at = graph_.values_[target].count;
  take_into(kind == Kind::object ? added_to(graph_.objects_[at].pairs) : graph_.containers_[at],
            count);
}

void Machine::check_keys(std::size_t count) const {
  for (std::size_t i = stack_.size() - count; i < stack_.size(); i += 2) {
    switch (graph_.kind(stack_[i])) {
      case Kind::list:
      case Kind::dict:
      case Kind::set:
      case Kind::bytearray:
        corrupt("a key that can't be one");
      default:
        break;
    }
  }
}

void Machine::stack_global() {
  const Ref name = pop(Kind::text, "a name");
  const Ref module = pop(Kind::text, "a module's name");
  push(name_global(graph_.text(module), graph_.text(name)));
}

void Machine::build() {
  const Ref state = pop();
  const Ref target = top();
  switch (graph_.kind(target)) {
    case Kind::object: {
      Object& object = graph_.objects_[graph_.values_[target].count];
      if (object.state != kNoRef) corrupt("an object gets its state twice");
      object.state = state;
      return;
    }
    case Kind::dict:  // attributes beside the entries, such as a state_dict's _metadata
      return;
    default:
      corrupt("a state for what has none");
  }
}

}  // namespace cairn::detail::pickle
