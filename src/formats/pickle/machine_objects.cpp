// What Python would call: containers and numbers are made, everything else is recorded.

#include <algorithm>
#include <string>
#include <utility>

#include "base/digest.hpp"
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
  if (!args.empty()) {
    // Python 2 wrote an OrderedDict as a list of pairs; a Counter is made from a dict.
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

namespace {

/// A text or an integer as a key: True is 1.
struct Key {
  bool is_text = false;
  std::string_view text;
  std::int64_t number = 0;

  Key(const Graph& graph, Ref ref) : is_text(graph.kind(ref) == Kind::text) {
    if (is_text) text = graph.text(ref);
    if (graph.kind(ref) == Kind::integer) number = graph.integer(ref);
    if (graph.kind(ref) == Kind::boolean) number = graph.boolean(ref);
  }
  auto operator<=>(const Key&) const = default;
};

/// Sorts by hash first: comparing texts, which lie all over the stream, would take longer. Equal
/// keys keep their order.
struct Hashed {
  std::uint64_t hash = 0;
  Key key;
  std::uint32_t place = 0;

  Hashed(const Key& of, std::uint32_t at)
      : hash(of.is_text ? digest_of(of.text) : static_cast<std::uint64_t>(of.number)),
        key(of),
        place(at) {}
  auto operator<=>(const Hashed&) const = default;
};

bool is_comparable(Kind kind) {
  return kind == Kind::text || kind == Kind::integer || kind == Kind::boolean;
}

}  // namespace

bool Machine::has_equal_keys(std::span<const Ref> few) const {
  for (std::size_t i = 2; i < few.size(); i += 2) {
    if (!is_comparable(graph_.kind(few[i]))) continue;
    const Key key(graph_, few[i]);
    for (std::size_t j = 0; j < i; j += 2) {
      if (is_comparable(graph_.kind(few[j])) && Key(graph_, few[j]) == key) return true;
    }
  }
  return false;
}

std::vector<Graph::TextKey> Machine::settle(Graph::Refs& pairs) {
  std::vector<Hashed> keys;
  const std::uint64_t bytes = pairs.size() / 2 * sizeof(keys[0]);
  spend(bytes);
  keys.reserve(pairs.size() / 2);
  for (std::uint32_t i = 0; i < pairs.size(); i += 2) {
    if (is_comparable(graph_.kind(pairs[i]))) keys.emplace_back(Key(graph_, pairs[i]), i);
  }
  std::sort(keys.begin(), keys.end());
  bool repeated = false;
  std::size_t first = 0;
  for (std::size_t i = 1; i < keys.size(); ++i) {
    if (keys[i].hash != keys[first].hash || keys[i].key != keys[first].key) {
      first = i;
      continue;
    }
    repeated = true;
    pairs[keys[first].place + 1] = pairs[keys[i].place + 1];
    pairs[keys[i].place] = kNoRef;
  }
  std::vector<Graph::TextKey> texts;
  for (const Hashed& key : keys) {
    if (key.key.is_text) texts.push_back({key.hash, key.place});
  }
  spent_ -= bytes;
  if (!repeated) return texts;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < pairs.size(); i += 2) {
    if (pairs[i] == kNoRef) continue;
    pairs[kept++] = pairs[i];
    pairs[kept++] = pairs[i + 1];
  }
  pairs.resize(kept);
  return settle(pairs);
}

void Machine::settle_keys() {
  for (const Graph::Value& value : graph_.values_) {
    if (value.kind != Kind::dict) continue;
    Graph::Refs& pairs = graph_.containers_[value.count];
    const bool few = pairs.size() <= 2 * Graph::kFewPairs;
    if (few && !has_equal_keys(pairs)) continue;
    std::vector<Graph::TextKey> texts = settle(pairs);
    if (pairs.size() <= 2 * Graph::kFewPairs) continue;
    spend(texts.capacity() * sizeof(texts[0]));
    graph_.text_keys_.emplace(value.count, std::move(texts));
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
