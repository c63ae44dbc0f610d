#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "base/throw.hpp"
#include "pipeline/legacy/plan.hpp"

namespace cairn::detail::legacy {
namespace {

constexpr std::array<std::string_view, 5> kNames{"E0", "E1", "E2", "E3", "ES"};

bool is_mapping(const Value* value) {
  return value != nullptr && value->type == Value::Type::mapping;
}

Era detected(const Reader& reader) {
  if (reader.says("training.checkpoint")) return Era::e3;
  if (is_mapping(reader.find("system"))) return Era::e2;
  if (is_mapping(reader.find("hardware"))) {
    if (reader.find("hardware.paths.warm_start") != nullptr) return Era::e1;
    // Where neither says anything, both eras mean the same.
    return reader.says("hardware.files.warm_start") ? Era::e0 : Era::e1;
  }
  return reader.has_blocks() && first_legacy_key(reader.document()) == nullptr ? Era::es : Era::e2;
}

}  // namespace

std::string_view to_string(Era era) { return kNames[static_cast<std::size_t>(era)]; }

Version parse_version(const std::string& text) {
  for (const Era era : {Era::e0, Era::e1, Era::e2, Era::e3}) {
    if (text == to_string(era)) return {era, -1, true};
  }
  // "0.7" or "0.7.3"
  int parts[3] = {-1, -1, 0};
  std::string_view rest = text;
  if (rest.starts_with('v')) rest.remove_prefix(1);
  bool more = true;
  for (int& part : parts) {
    if (!more) break;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), part);
    if (error != std::errc{} || rest.front() == '-') part = -1;
    rest.remove_prefix(error == std::errc{} ? static_cast<std::size_t>(end - rest.data()) : 0);
    more = rest.starts_with('.');
    if (more) rest.remove_prefix(1);
  }
  if (more || !rest.empty() || parts[0] != 0 || parts[1] < 0 || parts[2] < 0) {
    fail(Errc::usage,
         "'{}' is no version of the legacy system: give a release such as 0.7, or an era, E0 to E3",
         text);
  }
  const int minor = parts[1];
  return {minor <= 5    ? Era::e0
          : minor <= 7  ? Era::e1
          : minor <= 16 ? Era::e2
                        : Era::e3,
          minor, true};
}

Version version_of(Reader& reader, const std::optional<Version>& from) {
  const Version version = from ? *from : Version{detected(reader)};
  const std::string era(to_string(version.era));
  if (version.era == Era::es) return version;
  for (const LegacyKey& key : legacy_keys()) {
    const Value* value = reader.find(key.path);
    if (!says_something(key, value) || (key.first <= version.era && version.era <= key.last)) {
      continue;
    }
    reader.error(from ? "version-mismatch" : "mixed-eras", {std::string(key.path)},
                 fmt::format("is no key of the era {} that {}", era,
                             from ? "the version names" : "the rest of the file is of"));
  }
  return version;
}

}  // namespace cairn::detail::legacy
