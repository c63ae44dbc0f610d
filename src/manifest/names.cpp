#include "manifest/names.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/text.hpp"
#include "base/throw.hpp"
#include "cairn/tensor_view.hpp"

namespace cairn {
namespace {

bool is_plain(char c) {
  return c != '/' && c != '%' && static_cast<unsigned char>(c) >= 0x20 && c != 0x7f;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string escape_component(std::string_view component) {
  if (component.empty()) return "%";  // a lone percent sign: no other text escapes to it
  if (component == ".") return "%2E";
  std::string text;
  for (const char c : component) {
    if (is_plain(c)) {
      text += c;
    } else {
      text += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return text;
}

std::string unescape_component(std::string_view component) {
  if (component == "%") return {};
  std::string text;
  for (std::size_t i = 0; i < component.size(); ++i) {
    if (component[i] == '%' && i + 2 < component.size() && hex_digit(component[i + 1]) >= 0 &&
        hex_digit(component[i + 2]) >= 0) {
      text += static_cast<char>(hex_digit(component[i + 1]) * 16 + hex_digit(component[i + 2]));
      i += 2;
    } else {
      text += component[i];
    }
  }
  return text;
}

namespace detail::names {
namespace {

constexpr std::string_view kPartial = ".partial";
constexpr std::string_view kSkeleton = ".skeleton";
constexpr std::string_view kPinned = ".pinned";
constexpr std::string_view kBad = ".bad";
constexpr std::string_view kVerified = ".verified";
constexpr std::string_view kPrefix = "step-";
constexpr std::string_view kSuffix = ".h5";
// HDF5 keeps a link's name in a message of at most 64 KiB; far below that every tool still prints
// it.
constexpr std::size_t kLongestComponent = 4096;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// The first of `count` nonces behind `prefix`, where the name is made of nothing else.
std::optional<std::uint64_t> parse_nonces(std::string_view name, std::string_view prefix,
                                          std::size_t count) {
  constexpr std::size_t kDigits = 16;
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  if (name.size() != count * (kDigits + 1) - 1) return std::nullopt;
  std::uint64_t first = 0;
  for (std::size_t i = 0; i < count; ++i) {
    std::uint64_t nonce = 0;
    const char* begin = name.data() + i * (kDigits + 1);
    const auto [end, error] = std::from_chars(begin, begin + kDigits, nonce, 16);
    if (error != std::errc{} || end != begin + kDigits) return std::nullopt;
    if (i != 0 && begin[-1] != '-') return std::nullopt;
    if (i == 0) first = nonce;
  }
  return first;
}

std::filesystem::path hidden(const std::filesystem::path& target, std::string_view suffix) {
  return target.parent_path() / fmt::format(".{}{}", target.filename().string(), suffix);
}

}  // namespace

std::string checkpoint_file(std::uint64_t step) {
  return fmt::format("{}{:08}{}", kPrefix, step, kSuffix);
}

std::optional<std::uint64_t> parse_checkpoint_file(std::string_view name) {
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  name.remove_suffix(kSuffix.size());
  std::uint64_t step = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc{} || end != name.data() + name.size()) return std::nullopt;
  if (fmt::format("{:08}", step) != name) return std::nullopt;  // one step has one name
  return step;
}

std::string weights_file(std::uint64_t step) {
  return fmt::format("weights-{:08}{}", step, kSuffix);
}

std::filesystem::path partial_file(const std::filesystem::path& target) {
  return hidden(target, kPartial);
}

std::filesystem::path skeleton_file(const std::filesystem::path& target) {
  return hidden(target, kSkeleton);
}

std::filesystem::path partial_link(const std::filesystem::path& link) {
  return hidden(link, kPartial);
}

std::filesystem::path pin_file(const std::filesystem::path& checkpoint) {
  return hidden(checkpoint, kPinned);
}

std::filesystem::path bad_mark(const std::filesystem::path& checkpoint) {
  return hidden(checkpoint, kBad);
}

std::filesystem::path verified_mark(const std::filesystem::path& checkpoint) {
  return hidden(checkpoint, kVerified);
}

std::optional<SidecarName> parse_sidecar(std::string_view name) {
  if (!name.starts_with('.')) return std::nullopt;
  name.remove_prefix(1);
  constexpr std::pair<std::string_view, Sidecar> kKinds[] = {{kPartial, Sidecar::partial},
                                                             {kSkeleton, Sidecar::skeleton},
                                                             {kPinned, Sidecar::pin},
                                                             {kBad, Sidecar::bad},
                                                             {kVerified, Sidecar::verified}};
  for (const auto& [suffix, kind] : kKinds) {
    if (!name.ends_with(suffix)) continue;
    const std::string_view checkpoint = name.substr(0, name.size() - suffix.size());
    if (!parse_checkpoint_file(checkpoint)) return std::nullopt;
    return SidecarName{std::string(checkpoint), kind};
  }
  return std::nullopt;
}

std::string lease_candidate(std::uint64_t nonce) {
  return fmt::format("{}-{:016x}", kLease, nonce);
}

bool is_lease_candidate(std::string_view name) {
  return parse_nonces(name, fmt::format("{}-", kLease), 1).has_value();
}

std::string lease_claim(std::uint64_t holder, std::uint64_t last) {
  return fmt::format("{}-after-{:016x}-{:016x}", kLease, holder, last);
}

std::optional<std::uint64_t> parse_lease_claim(std::string_view name) {
  return parse_nonces(name, fmt::format("{}-after-", kLease), 2);
}

std::filesystem::path partial_small(const std::filesystem::path& target, std::uint64_t nonce) {
  std::string name = target.filename().string();
  if (!name.starts_with('.')) name.insert(0, 1, '.');
  return target.parent_path() / fmt::format("{}-{:016x}", name, nonce);
}

std::string shard_file(std::size_t number, std::size_t count) {
  return fmt::format("model-{:05}-of-{:05}.safetensors", number, count);
}

std::string rank_blob(std::string_view blob) {
  return fmt::format("{}/{}", kRanks, escape_component(blob));
}
bool is_rank_blob(std::string_view tensor) {
  return tensor.starts_with(kRanks) && tensor.substr(kRanks.size()).starts_with('/');
}

std::string document(std::string_view name) {
  return fmt::format("{}/{}", kMeta, escape_component(name));
}

bool natural_less(std::string_view a, std::string_view b) {
  const auto digits_at = [](std::string_view text, std::size_t at) {
    std::size_t end = at;
    while (end < text.size() && is_digit(text[end])) ++end;
    while (at + 1 < end && text[at] == '0') ++at;
    return text.substr(at, end - at);
  };
  std::size_t i = 0;
  std::size_t j = 0;
  while (i < a.size() && j < b.size()) {
    if (is_digit(a[i]) && is_digit(b[j])) {
      const std::string_view x = digits_at(a, i);
      const std::string_view y = digits_at(b, j);
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
      i = static_cast<std::size_t>(x.data() + x.size() - a.data());
      j = static_cast<std::size_t>(y.data() + y.size() - b.data());
      continue;
    }
    if (a[i] != b[j]) return static_cast<unsigned char>(a[i]) < static_cast<unsigned char>(b[j]);
    ++i;
    ++j;
  }
  if (a.size() - i != b.size() - j) return a.size() - i < b.size() - j;
  return a < b;
}

void check_tensor_name(std::string_view name) {
  const auto refuse = [&](std::string_view why) {
    fail(Errc::usage,
         "tensor name '{}' {}; use a path such as 'model/encoder.weight' and "
         "escape_component for its parts",
         printable(name), why);
  };
  if (name.find('/') == std::string_view::npos) refuse("has no group");
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t end = std::min(name.find('/', at), name.size());
    const std::string_view component = name.substr(at, end - at);
    if (component.empty() || component == ".") refuse("has an empty component");
    if (component.size() > kLongestComponent) refuse("has a component over 4096 bytes");
    if (!std::all_of(component.begin(), component.end(),
                     [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f; })) {
      refuse("has a control character");
    }
    if (at == 0 && (component == kIndex || component == kCommit || component == kMeta)) {
      refuse("lies in a group that cairn keeps for itself");
    }
    at = end + 1;
  }
}

}  // namespace detail::names
}  // namespace cairn
