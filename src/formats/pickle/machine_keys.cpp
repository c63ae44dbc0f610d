// Keys of dicts: each once, and found quickly in large ones.

#include <algorithm>
#include <compare>
#include <utility>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "formats/pickle/machine.hpp"

namespace cairn::detail::pickle {
namespace {

// A text of megabytes as the key of thousands of dicts costs the file a few bytes each.
constexpr std::uint64_t kMostLookedAt = 1 << 30;

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

bool is_comparable(Kind kind) {
  return kind == Kind::text || kind == Kind::integer || kind == Kind::boolean;
}

}  // namespace

void Machine::look_at(std::string_view key) {
  looked_at_ += key.size();
  if (looked_at_ > kMostLookedAt) {
    fail(Errc::unsafe, "{}: to compare its keys takes too long", where());
  }
}

bool Machine::equal(Ref a, Ref b) {
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
    if (!is_comparable(graph_.kind(few[i]))) continue;
    for (std::size_t j = 0; j < i; j += 2) {
      if (is_comparable(graph_.kind(few[j])) && equal(few[i], few[j])) return true;
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
    if (!is_comparable(graph_.kind(pairs[i]))) continue;
    const Key key(graph_, pairs[i]);
    look_at(key.text);
    keys.push_back({key.is_text ? digest_of(key.text) : static_cast<std::uint64_t>(key.number), i});
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
