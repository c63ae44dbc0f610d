#include "formats/pickle/graph.hpp"

#include <algorithm>
#include <bit>

#include "base/digest.hpp"

namespace cairn::detail::pickle {

std::string Global::qualified() const { return modern_name(module, name); }

Class Graph::class_of(Ref ref) const {
  const Value& value = values_[ref];
  if (value.kind == Kind::global) return globals_[value.count].cls;
  if (value.kind == Kind::object) {
    const Ref callee = objects_[value.count].callee;
    return kind(callee) == Kind::global ? global(callee).cls : Class::unknown;
  }
  return value.cls;
}

double Graph::real(Ref ref) const { return std::bit_cast<double>(values_[ref].bits); }

std::string Graph::decimal(Ref ref) const {
  if (kind(ref) == Kind::integer) return std::to_string(integer(ref));
  // Little-endian bytes to base 1e9, by repeated division; the machine bounds their number.
  const std::string_view raw = text(ref);
  const bool negative = !raw.empty() && (static_cast<unsigned char>(raw.back()) & 0x80) != 0;
  std::vector<std::uint8_t> bytes(raw.begin(), raw.end());
  if (negative) {
    unsigned carry = 1;
    for (std::uint8_t& byte : bytes) {
      carry += static_cast<std::uint8_t>(~byte);
      byte = static_cast<std::uint8_t>(carry);
      carry >>= 8;
    }
  }
  constexpr std::uint64_t kBase = 1'000'000'000;
  std::string digits;
  while (!bytes.empty()) {
    std::uint64_t rest = 0;
    for (std::size_t i = bytes.size(); i-- > 0;) {
      rest = rest << 8 | bytes[i];
      bytes[i] = static_cast<std::uint8_t>(rest / kBase);
      rest %= kBase;
    }
    while (!bytes.empty() && bytes.back() == 0) bytes.pop_back();
    for (int i = 0; i < 9 && (rest != 0 || !bytes.empty()); ++i, rest /= 10) {
      digits += static_cast<char>('0' + rest % 10);
    }
  }
  if (digits.empty()) digits += '0';
  if (negative) digits += '-';
  std::reverse(digits.begin(), digits.end());
  return digits;
}

std::span<const Ref> Graph::elements(Ref ref) const {
  const Value& value = values_[ref];
  switch (value.kind) {
    case Kind::tuple:
    case Kind::complex:
      return std::span(elements_).subspan(value.bits, value.count);
    case Kind::list:
    case Kind::set:
    case Kind::frozenset:
      return containers_[value.count];
    default:
      return {};
  }
}

std::span<const Ref> Graph::pairs(Ref ref) const {
  if (kind(ref) != Kind::dict) return {};
  return containers_[values_[ref].count];
}

std::optional<Ref> Graph::find(Ref dict, std::string_view key) const {
  const auto all = pairs(dict);
  if (all.size() > 2 * kFewPairs) {
    const auto& keys = text_keys_.at(values_[dict].count);
    const std::uint64_t hash = digest_of(key);
    auto at = std::lower_bound(
        keys.begin(), keys.end(), hash,
        [](const HashedKey& known, std::uint64_t wanted) { return known.hash < wanted; });
    for (; at != keys.end() && at->hash == hash; ++at) {
      if (text(all[at->place]) == key) return all[at->place + 1];
    }
    return std::nullopt;
  }
  for (std::size_t i = 0; i + 1 < all.size(); i += 2) {
    if (is_text(all[i], key)) return all[i + 1];
  }
  return std::nullopt;
}

Ref Graph::child(Ref ref, std::size_t index) const {
  const auto of = [&](std::span<const Ref> refs) {
    return index < refs.size() ? refs[index] : kNoRef;
  };
  switch (kind(ref)) {
    case Kind::dict:
      return of(pairs(ref));
    case Kind::persistent:
      return index == 0 ? persistent_id(ref) : kNoRef;
    case Kind::object: {
      const Object& made = object(ref);
      const Ref parts[] = {made.callee, made.args, made.kwargs, made.state};
      std::size_t at = 0;
      for (const Ref part : parts) {
        if (part != kNoRef && at++ == index) return part;
      }
      index -= at;
      const auto items = items_of(made);
      if (index < items.size()) return items[index];
      index -= items.size();
      return of(pairs_of(made));
    }
    default:
      return of(elements(ref));
  }
}

}  // namespace cairn::detail::pickle
