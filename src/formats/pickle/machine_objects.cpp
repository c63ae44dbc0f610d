// What Python would call: containers and numbers are made, everything else is recorded.

#include <algorithm>
#include <string>
#include <utility>

#include "base/throw.hpp"
#include "formats/pickle/machine.hpp"
#include "formats/pickle/texts.hpp"

namespace cairn::detail::pickle {

Ref Machine::called(Ref callee, Ref args) {
  const Kind kind = graph_.kind(callee);
  if (kind != Kind::global && kind != Kind::object) corrupt("a call of what can't be called");
  if (kind == Kind::global) {
    const Ref made = called_known(graph_.class_of(callee), graph_.elements(args));
    if (made != kNoRef) return made;
  }
  return make_object(callee, args, kNoRef, true);
}

/// The value that the call of a known class gives, or kNoRef where a record has to do.
Ref Machine::called_known(Class cls, std::span<const Ref> args) {
  switch (cls) {
    case Class::dict:
    case Class::ordered_dict:
    case Class::counter:
      return dict_of(cls, args);
    case Class::default_dict:
      return dict_of(cls, args.subspan(args.empty() ? 0 : 1));
    case Class::list:
    case Class::set:
    case Class::frozenset: {
      const Kind kind = cls == Class::list  ? Kind::list
                        : cls == Class::set ? Kind::set
                                            : Kind::frozenset;
      if (args.size() > 1) return kNoRef;
      const bool copied = !args.empty();
      const Ref from = copied ? args[0] : kNoRef;
      if (copied && graph_.kind(from) != Kind::list && graph_.kind(from) != Kind::tuple) {
        return kNoRef;
      }
      const Ref made = make_container(kind, cls);
      if (!copied) return made;
      const auto elements = graph_.elements(from);
      spend(elements.size_bytes());
      auto& to = graph_.containers_[graph_.values_[made].count];
      to.assign(elements.begin(), elements.end());
      return made;
    }
    case Class::complex: {
      const bool parts = args.size() == 2 && graph_.kind(args[0]) == Kind::real &&
                         graph_.kind(args[1]) == Kind::real;
      if (!parts) return kNoRef;
      push(args[0]);
      push(args[1]);
      const Ref made = make_tuple(2);
      graph_.values_[made].kind = Kind::complex;
      return made;
    }
    case Class::codecs_encode:
    case Class::bytes:
      return bytes_of(Kind::bytes, args);
    case Class::bytearray:
      return bytes_of(Kind::bytearray, args);
    case Class::reconstructor:
      return reconstructed(args);
    case Class::get_attribute:
    case Class::attribute_getter:
      check_attribute(cls, args);
      return kNoRef;
    default:
      return kNoRef;
  }
}

/// (class, base, what the base is made of): protocols 0 and 1 make objects so. What a dict's or
/// list's subclass holds is added to it, as later protocols do.
Ref Machine::reconstructed(std::span<const Ref> args) {
  if (args.empty() || graph_.kind(args[0]) != Kind::global) corrupt("an object without a class");
  const Ref made = args[0];
  const Class base = args.size() < 3 ? Class::object : graph_.class_of(args[1]);
  if (base == Class::object) return allocated(made, kEmptyTuple, kNoRef);
  const Ref content = args[2];
  const Kind kind = graph_.kind(content);
  if (base == Class::tuple && kind == Kind::tuple) {
    return make_object(made, content, kNoRef, false);
  }
  const bool is_dict = base == Class::dict && kind == Kind::dict;
  if (is_dict || (base == Class::list && kind == Kind::list)) {
    push(allocated(made, kEmptyTuple, kNoRef));
    const std::size_t count =
        is_dict ? graph_.pairs(content).size() : graph_.elements(content).size();
    for (std::size_t i = 0; i < count; ++i) push(graph_.child(content, i));
    if (is_dict) {
      set_items(count);
    } else {
      add_items(count, Op::appends);
    }
    return pop();
  }
  push(content);
  return make_object(made, make_tuple(1), kNoRef, false);
}

Ref Machine::dict_of(Class cls, std::span<const Ref> args) {
  if (args.size() > 1) return kNoRef;
  std::vector<Ref> pairs;
  // A Counter counts what is in a list.
  if (cls == Class::counter && !args.empty() && graph_.kind(args[0]) != Kind::dict) return kNoRef;
  if (!args.empty()) {
    // Python 2 wrote an OrderedDict as a list of pairs.
    switch (graph_.kind(args[0])) {
      case Kind::dict:
        pairs.assign(graph_.pairs(args[0]).begin(), graph_.pairs(args[0]).end());
        break;
      case Kind::list:
      case Kind::tuple:
        for (const Ref item : graph_.elements(args[0])) {
          const bool sequence = graph_.kind(item) == Kind::list || graph_.kind(item) == Kind::tuple;
          const auto pair = graph_.elements(item);
          if (!sequence || pair.size() != 2) return kNoRef;
          pairs.insert(pairs.end(), pair.begin(), pair.end());
        }
        break;
      default:
        return kNoRef;
    }
  }
  spend(pairs.size() * sizeof(Ref));
  const Ref made = make_container(Kind::dict, cls);
  graph_.containers_[graph_.values_[made].count].assign(pairs.begin(), pairs.end());
  return made;
}

/// bytes(b"..."), bytearray(b"..."), and the texts whose code points are the bytes.
Ref Machine::bytes_of(Kind kind, std::span<const Ref> args) {
  if (args.empty()) return made(kind, {});
  const Kind first = graph_.kind(args[0]);
  if (args.size() == 1 && first == Kind::bytes) return view(kind, graph_.text(args[0]));
  const bool encoded = args.size() == 2 && first == Kind::text;
  const bool latin1 =
      encoded && (graph_.is_text(args[1], "latin1") || graph_.is_text(args[1], "latin-1") ||
                  graph_.is_text(args[1], "iso-8859-1"));
  if (!latin1) {
    fail(Errc::unsafe, "{}: bytes made in another way than pickle does it", where());
  }
  std::string raw;
  if (!latin1_of(graph_.text(args[0]), raw)) corrupt("a text that is no bytes");
  return made(kind, std::move(raw));
}

void Machine::check_attribute(Class cls, std::span<const Ref> args) const {
  for (std::size_t i = cls == Class::get_attribute ? 1 : 0; i < args.size(); ++i) {
    if (graph_.kind(args[i]) != Kind::text) continue;
    const std::string_view name = graph_.text(args[i]);
    if (is_unsafe_attribute(name)) {
      fail(Errc::unsafe, "{}: it asks for the attribute '{}', which leads to code; nothing was run",
           where(), name);
    }
  }
}

/// PyTorch's old format wraps the class of a module, where it meets it first, in a persistent
/// value: ("module", class, its source file, its source). Its reader takes the class out again.
Ref Machine::kept_outside(Ref id) {
  const auto parts = graph_.elements(id);
  if (graph_.kind(id) == Kind::tuple && parts.size() == 4 && graph_.is_text(parts[0], "module")) {
    const Kind kind = graph_.kind(parts[1]);
    if (kind == Kind::global || kind == Kind::object) return parts[1];
  }
  return make(Kind::persistent, Class::unknown, id, 0);
}

/// An object that was made but not initialised.
Ref Machine::allocated(Ref callee, Ref args, Ref kwargs) {
  const Kind kind = graph_.kind(callee);
  if (kind != Kind::global && kind != Kind::object) corrupt("an object of what is no class");
  if (graph_.elements(args).empty()) {
    switch (graph_.class_of(callee)) {
      case Class::dict:
      case Class::ordered_dict:
      case Class::default_dict:
      case Class::counter:
        return make_container(Kind::dict, graph_.class_of(callee));
      case Class::list:
        return make_container(Kind::list, Class::list);
      case Class::set:
        return make_container(Kind::set, Class::set);
      default:
        break;
    }
  }
  return make_object(callee, args, kwargs, false);
}

}  // namespace cairn::detail::pickle
