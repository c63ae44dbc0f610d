#include "torch/custom.hpp"

#include <map>
#include <mutex>
#include <utility>

#include "base/throw.hpp"
#include "pipeline/modifier_types.hpp"

namespace cairn {
namespace detail {
namespace {

/// One for the process, as the types that configurations may name are.
struct Registry {
  std::mutex mutex;
  std::map<std::string, ModifierFunction> functions;
};

Registry& registry() {
  static Registry the_registry;
  return the_registry;
}

}  // namespace

ModifierWork prepare_custom(const CustomModifier& settings, torch::nn::Module& model) {
  ModifierFunction prepare;
  {
    const std::lock_guard lock(registry().mutex);
    const auto found = registry().functions.find(settings.type);
    if (found == registry().functions.end()) {
      fail(Errc::usage, "no modifier of type '{}' is registered; call register_modifier_type",
           settings.type);
    }
    prepare = found->second;
  }
  ModifierWork work = prepare(settings, model);
  if (!work) fail(Errc::usage, "the modifier '{}' returned no work to do", settings.type);
  return work;
}

}  // namespace detail

Resettable::~Resettable() = default;

void register_modifier_type(const std::string& type, ModifierFunction prepare) {
  if (prepare == nullptr) detail::fail(Errc::usage, "a modifier type needs a function");
  const std::lock_guard lock(detail::registry().mutex);
  detail::add_modifier_type(type);
  detail::registry().functions.emplace(type, std::move(prepare));
}

}  // namespace cairn
