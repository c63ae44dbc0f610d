#include "sources/registry.hpp"

#include <fmt/ranges.h>

#include <array>
#include <map>
#include <mutex>
#include <utility>

#include "base/throw.hpp"

namespace cairn {
namespace detail {
namespace {

constexpr std::array<std::string_view, 6> kBuiltIn{"local", "run", "http",
                                                   "https", "s3",  "huggingface"};

/// One for the process, because a configuration is read without any object that could hold it.
struct Registry {
  std::mutex mutex;
  std::map<std::string, SourceFunction> types;
};

Registry& registry() {
  static Registry the_registry;
  return the_registry;
}

}  // namespace

std::vector<std::string> registered_source_types() {
  const std::lock_guard lock(registry().mutex);
  std::vector<std::string> types;
  for (const auto& entry : registry().types) types.push_back(entry.first);
  return types;
}

SourceFunction source_function(const std::string& type) {
  const std::lock_guard lock(registry().mutex);
  const auto found = registry().types.find(type);
  return found == registry().types.end() ? SourceFunction() : found->second;
}

}  // namespace detail

void register_source_type(const std::string& type, SourceFunction fetch) {
  using detail::fail;
  if (type.empty() || fetch == nullptr) {
    fail(Errc::usage, "a source type needs a name and a function");
  }
  const bool built_in =
      std::find(detail::kBuiltIn.begin(), detail::kBuiltIn.end(), type) != detail::kBuiltIn.end();
  const std::lock_guard lock(detail::registry().mutex);
  if (built_in || !detail::registry().types.emplace(type, std::move(fetch)).second) {
    fail(Errc::usage, "the source type '{}' exists already; choose another name", type);
  }
}

}  // namespace cairn
