#include "pipeline/modifier_types.hpp"

#include <mutex>
#include <set>

#include "base/throw.hpp"
#include "pipeline/rules.hpp"

namespace cairn::detail {
namespace {

/// One for the process, because a configuration is read without any object that could hold it.
struct Registry {
  std::mutex mutex;
  std::set<std::string> types;
};

Registry& registry() {
  static Registry the_registry;
  return the_registry;
}

}  // namespace

std::vector<std::string> registered_modifier_types() {
  const std::lock_guard lock(registry().mutex);
  return {registry().types.begin(), registry().types.end()};
}

void add_modifier_type(const std::string& type) {
  if (type.empty()) fail(Errc::usage, "a modifier type needs a name");
  const bool built_in = find_type(kModifierRule, type) != nullptr;
  const std::lock_guard lock(registry().mutex);
  if (built_in || !registry().types.insert(type).second) {
    fail(Errc::usage, "the modifier type '{}' exists already; choose another name", type);
  }
}

}  // namespace cairn::detail
