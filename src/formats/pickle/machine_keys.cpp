// Keys of dicts: each once, and found quickly in large ones.

#include <algorithm>
#include <bit>
#include <cmath>
#include <compare>
#include <utility>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "formats/pickle/machine.hpp"

namespace cairn::detail::pickle {
namespace {

// A text of megabytes as the key of thousands of dicts costs the file a few bytes each.
constexpr std::uint64_t kMostLookedAt = 1 << 30;

/// A text or a number as a key. Numbers are equal across types: True, 1, 1.0 and 1+0j are one key.
struct Key {
  bool is_text = false;
  bool is_real = false;  // and no integer of 64 bits
  std::string_view text;
  std::int64_t number = 0;
  std::uint64_t bits = 0;  // of a real

  Key(const Graph& graph, Ref ref) : is_text(graph.kind(ref) == Kind::text) {
    if (is_text) text = graph.text(ref);
    if (graph.kind(ref) == Kind::integer) number = graph.integer(ref);
    if (graph.kind(ref) == Kind::boolean) number = graph.boolean(ref);
    if (graph.kind(ref) == Kind::complex) ref = graph.elements(ref)[0];
    if (graph.kind(ref) == Kind::real) set(graph.real(ref));
  }
  auto operator<=>(const Key&) const = default;
  std::uint64_t hash() const {
    return is_text ? digest_of(text) : static_cast<std::uint64_t>(number) ^ bits;
  }

 private:
  void set(double real) {
    constexpr double kMost = 9223372036854775808.0;  // 2^63
    is_real = real < -kMost || real >= kMost || std::trunc(real) != real;
    if (is_real) {
      bits = std::bit_cast<std::uint64_t>(real);
    } else {
      number = static_cast<std::int64_t>(real);
    }
  }
};

/// Not NaN, which is equal to nothing; nor what no checkpoint has as keys of tensors.
bool is_comparable(const Graph& graph, Ref ref) {
  switch (graph.kind(ref)) {
    case Kind::text:
    case Kind::integer:
    case Kind::boolean:
      return true;
    case Kind::real:
      return !std::isnan(graph.real(ref));
    case Kind::complex:
      return graph.real(graph.elements(ref)[1]) == 0 &&
             is_comparable(graph, graph.elements(ref)[0]);
    default:
      return false;
  }
}

}  // namespace

void Machine::look_at(std::string_view key) {
  looked_at_ += key.size();
  if (looked_at_ > kMostLookedAt) {
    fail(Errc::unsafe, "{}: to compare its keys takes too long", where());
  }
}

bool Machine::equal(Ref a, Ref b) {
  const bool texts = graph_.kind(a) == Kind::text && graph_.kind(b) == Kind::text;
  if (texts && graph_.text(a).size() != graph_.text(b).size()) return false;
  const Key left(graph_, a);
  const Key right(graph_, b);
  if (left.text.size() == right.text.size()) look_at(left.text);
  return left == right;
}

bool Machine::less(Ref a, Ref b) {
  const Key left(graph_, a);
  const Key right(graph_, b);
  look_at(left.text);
  return left < right;
}

bool Machine::has_equal_keys(std::span<const Ref> few) {
  for (std::size_t i = 2; i < few.size(); i += 2) {
    if (!is_comparable(graph_, few[i])) continue;
    for (std::size_t j = 0; j < i; j += 2) {
      if (is_comparable(graph_, few[j]) && equal(few[i], few[j])) return true;
    }
  }
  return false;
}

std::vector<Graph::HashedKey> Machine::settle(Refs& pairs) {
  std::vector<Graph::HashedKey> keys;
  const std::uint64_t bytes = pairs.size() / 2 * sizeof(keys[0]);
  spend(bytes);
  keys.reserve(pairs.size() / 2);
  for (std::uint32_t i = 0; i < pairs.size(); i += 2) {
    if (!is_comparable(graph_, pairs[i])) continue;
    const Key key(graph_, pairs[i]);
    look_at(key.text);
    keys.push_back({key.hash(), i});
  }
  // Texts lie all over the stream: they are compared only where their hashes are equal.
  std::sort(keys.begin(), keys.end(), [&](const auto& a, const auto& b) {
    if (a.hash != b.hash) return a.hash < b.hash;
    if (less(pairs[a.place], pairs[b.place])) return true;
    return !less(pairs[b.place], pairs[a.place]) && a.place < b.place;
  });
  bool repeated = false;
  std::size_t first = 0;
  for (std::size_t i = 1; i < keys.size(); ++i) {
    if (keys[i].hash != keys[first].hash ||
        !equal(pairs[keys[i].place], pairs[keys[first].place])) {
      first = i;
      continue;
    }
    repeated = true;
    pairs[keys[first].place + 1] = pairs[keys[i].place + 1];
    pairs[keys[i].place] = kNoRef;
  }
  if (!repeated) {
    std::erase_if(keys,
                  [&](const auto& key) { return graph_.kind(pairs[key.place]) != Kind::text; });
    return keys;
  }
  spent_ -= bytes;
  keys = {};
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
    Refs& pairs = graph_.containers_[value.count];
    const bool few = pairs.size() <= 2 * Graph::kFewPairs;
    if (few && !has_equal_keys(pairs)) continue;
    std::vector<Graph::HashedKey> texts = settle(pairs);
    if (pairs.size() <= 2 * Graph::kFewPairs) continue;
    graph_.text_keys_.emplace(value.count, std::move(texts));
  }
}

}  // namespace cairn::detail::pickle
