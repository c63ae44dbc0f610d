#include "torch/optimizer.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "cairn/tensor_view.hpp"
#include "torch/optimizer_traits.hpp"

namespace cairn::detail {
namespace {

using torch::optim::Optimizer;
using Betas = std::tuple<double, double>;

constexpr std::string_view kStep = "step";

struct OptionWriter {
  Json& to;
  void operator()(const char* name, const double& value) const { to[name] = number_to_json(value); }
  void operator()(const char* name, const bool& value) const { to[name] = value; }
  void operator()(const char* name, const Betas& value) const {
    to[name] = {number_to_json(std::get<0>(value)), number_to_json(std::get<1>(value))};
  }
};

/// Whether a group may lack an option, which is off then: DeepSpeed's own Adam has no AMSGrad.
/// Other optimizers of PyTorch's lack it, too, and are told from Adam by that.
bool lacks(const Json& group, std::string_view option) {
  return option == "amsgrad" && !group.contains(option) && group.contains("bias_correction") &&
         !group.contains("max_coeff");  // LAMB has
}

struct OptionReader {
  const Json& from;
  void operator()(const char* name, double& value) const {
    value = number_from_json(from.at(name));
  }
  void operator()(const char* name, bool& value) const {
    value = lacks(from, name) ? false : from.at(name).get<bool>();
  }
  void operator()(const char* name, Betas& value) const {
    value = {number_from_json(from.at(name).at(0)), number_from_json(from.at(name).at(1))};
  }
};

/// The options of a group, as their true type.
template <class Options, class Group>
auto& options_of(Group& group, std::size_t position) {
  using Wanted = std::conditional_t<std::is_const_v<Group>, const Options, Options>;
  auto* options = group.has_options() ? dynamic_cast<Wanted*>(&group.options()) : nullptr;
  if (options == nullptr) {
    fail(Errc::usage,
         "parameter group {} of the optimizer has no options of the optimizer's own type",
         position);
  }
  return *options;
}

const std::string& name_of(const at::Tensor& parameter, const ParameterNames& names,
                           std::size_t group, std::size_t position) {
  const auto it = names.find(parameter.unsafeGetTensorImpl());
  if (it == names.end()) {
    fail(Errc::usage,
         "parameter {} in group {} of the optimizer is none of the model's; name the optimizer's "
         "parameters in ManagerOptions::optimizer_parameters",
         position, group);
  }
  return it->second;
}

/// Calls `visit(group position, name, parameter)` for each parameter of the optimizer.
template <class F>
void for_each_parameter(const Optimizer& optimizer, const ParameterNames& names, F&& visit) {
  std::set<std::string> seen;
  const auto& groups = optimizer.param_groups();
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const auto& parameters = groups[g].params();
    for (std::size_t p = 0; p < parameters.size(); ++p) {
      const std::string& name = name_of(parameters[p], names, g, p);
      if (!seen.insert(name).second) {
        fail(Errc::usage, "the optimizer has the parameter '{}' twice (again in group {})", name,
             g);
      }
      visit(g, name, parameters[p]);
    }
  }
}

/// The key of a parameter's state; see torch/optim/serialize.h.
std::string state_key(const at::Tensor& parameter) {
  return c10::guts::to_string(parameter.unsafeGetTensorImpl());
}

std::string slot_name(const std::string& parameter, const char* slot) {
  return fmt::format("optimizer/{}/{}", escape_component(parameter), slot);
}

/// Turns existing state into slots.
struct SlotWriter {
  const std::string& parameter;
  std::vector<OptimizerSlot>& to;
  void operator()(const char* slot, const at::Tensor& tensor) const {
    if (tensor.defined()) to.push_back({slot_name(parameter, slot), tensor, false});
  }
  void operator()(const char* slot, const std::int64_t& count) const {
    at::Tensor tensor = at::empty({}, at::kLong);
    *tensor.data_ptr<std::int64_t>() = count;
    to.push_back({slot_name(parameter, slot), tensor, true});
  }
};

/// What `apply` will move into the optimizer.
template <class Traits>
struct Plan {
  using State = typename Traits::State;
  std::vector<typename Traits::Options> options;
  /// By key; no state: the parameter had none when it was saved.
  std::vector<std::pair<std::string, std::unique_ptr<State>>> states;
  std::vector<std::pair<std::int64_t*, at::Tensor>> counters;
};

/// Makes room for the slots that the checkpoint has. Tensors of the present state that fit are
/// filled in place, which spares the memory of a second optimizer state.
template <class Traits>
struct SlotPreparer {
  const std::string& parameter;
  const at::Tensor& like;
  const SlotFinder& find;
  std::optional<std::int64_t> group_step;
  std::vector<OptimizerSlot>& slots;
  Plan<Traits>& plan;

  void operator()(const char* slot, at::Tensor& tensor) const {
    const std::string name = slot_name(parameter, slot);
    if (!find(name)) {
      tensor = at::Tensor();
      return;
    }
    const bool fits = tensor.defined() && tensor.sizes() == like.sizes() &&
                      tensor.scalar_type() == like.scalar_type() &&
                      tensor.device() == like.device();
    if (!fits) tensor = at::empty_like(like.detach(), at::MemoryFormat::Preserve);
    slots.push_back({name, tensor, false});
  }
  void operator()(const char* slot, std::int64_t& count) const {
    const std::string name = slot_name(parameter, slot);
    count = group_step.value_or(0);
    const auto dtype = find(name);
    if (!dtype) return;
    // PyTorch keeps it as a float.
    const auto type = *dtype == DType::f32   ? at::kFloat
                      : *dtype == DType::f64 ? at::kDouble
                                             : at::kLong;
    plan.counters.emplace_back(&count, at::empty({}, type));
    slots.push_back({name, plan.counters.back().second, true});
  }
};

/// The steps of those of a group's parameters that do not count their own. `group` may be null.
std::optional<std::int64_t> step_of(const Json* group) {
  if (group == nullptr || !group->contains(kStep)) return std::nullopt;
  const Json& step = group->at(kStep);
  // What has state was stepped.
  if (!step.is_number_integer() || step.get<std::int64_t>() <= 0) return std::nullopt;
  return step.get<std::int64_t>();
}

/// `group`: the parameter's as it was saved, or null.
template <class Traits>
void prepare_state(const Optimizer& optimizer, const std::string& name, const at::Tensor& parameter,
                   const Json* group, const SlotFinder& find, PreparedOptimizer& prepared,
                   Plan<Traits>& plan) {
  using State = typename Traits::State;
  const std::optional<std::int64_t> group_step = step_of(group);
  const auto has = [&](const char* slot) { return find(slot_name(name, slot)).has_value(); };
  bool any = false;
  State probe;
  Traits::slots(probe, [&](const char* slot, const auto&) { any = any || has(slot); });
  std::string key = state_key(parameter);
  if (!any) {
    plan.states.emplace_back(std::move(key), nullptr);
    return;
  }
  for (const char* slot : Traits::kRequired) {
    if (!has(slot) && !(slot == kStep && group_step)) {
      fail(Errc::mismatch,
           "the checkpoint has state of parameter '{}' but no '{}'; {} can't use it", name,
           slot_name(name, slot), Traits::kName);
    }
  }
  const auto known = optimizer.state().find(key);
  auto state = known == optimizer.state().end()
                   ? std::make_unique<State>()
                   : std::make_unique<State>(dynamic_cast<const State&>(*known->second));
  Traits::slots(*state,
                SlotPreparer<Traits>{name, parameter, find, group_step, prepared.slots, plan});
  plan.states.emplace_back(std::move(key), std::move(state));
}

/// Of a document that does not tell the type: whether the options are those of `Traits`.
template <class Traits>
void check_options(const Json& document) {
  typename Traits::Options options(0.0);  // whose names are asked for
  for (const Json& group : document.at("param_groups")) {
    Traits::options(options, [&](const char* name, const auto&) {
      if (group.contains(name) || lacks(group, name)) return;
      fail(
          Errc::mismatch,
          "the checkpoint's optimizer has no option '{}', so it is no {}; give an optimizer of its "
          "type, or load the model alone",
          name, Traits::kName);
    });
    if (group.value("maximize", false)) {
      fail(Errc::mismatch, "the checkpoint's optimizer maximizes, which LibTorch's {} does not",
           Traits::kName);
    }
    if (!group.value("bias_correction", true)) {
      fail(Errc::mismatch,
           "the checkpoint's optimizer does not correct the bias of its moments, as LibTorch's {} "
           "does",
           Traits::kName);
    }
  }
}

void check_document(const Json& document, const char* type, std::size_t groups) {
  const auto saved =
      document.at("type").is_null() ? std::string(type) : document.at("type").get<std::string>();
  if (saved != type) {
    fail(Errc::mismatch,
         "the checkpoint's optimizer is {} but the given one is {}; give a {}, or load "
         "the model alone",
         saved, type, saved);
  }
  if (document.at("param_groups").size() != groups) {
    fail(Errc::mismatch,
         "the checkpoint's optimizer has {} parameter groups but the given one has {}",
         document.at("param_groups").size(), groups);
  }
}

/// A number of steps; what is none, or none that anybody could have taken, counts as 0.
std::int64_t count_of(const at::Tensor& tensor) {
  if (!tensor.is_floating_point()) return *tensor.data_ptr<std::int64_t>();
  constexpr double kMost = 9e15;
  const double count = tensor.item<double>();
  return count >= 0 && count < kMost ? static_cast<std::int64_t>(count) : 0;
}

template <class Traits>
void apply(Optimizer& optimizer, Plan<Traits>& plan) {
  for (const auto& [count, tensor] : plan.counters) *count = count_of(tensor);
  auto& groups = optimizer.param_groups();
  for (std::size_t g = 0; g < groups.size(); ++g) {
    // Assigned, not replaced: the user may hold a reference to a group's options.
    options_of<typename Traits::Options>(groups[g], g) = plan.options[g];
  }
  for (auto& [key, state] : plan.states) {
    if (state) {
      optimizer.state()[key] = std::move(state);
    } else {
      optimizer.state().erase(key);
    }
  }
}

template <class Traits>
PreparedOptimizer prepare(Optimizer& optimizer, const ParameterNames& names, const Json& document,
                          const SlotFinder& find) {
  const auto& groups = std::as_const(optimizer).param_groups();
  const bool grouped = has_groups(document);
  if (grouped) {
    check_document(document, Traits::kName, groups.size());
    if (document.at("type").is_null()) check_options<Traits>(document);
  }

  PreparedOptimizer prepared;
  prepared.parameters = saved_parameters(document);
  prepared.matched.assign(prepared.parameters.size(), 0);
  const auto plan = std::make_shared<Plan<Traits>>();
  std::vector<std::unordered_map<std::string, std::size_t>> positions(groups.size());
  for (std::size_t g = 0, p = 0; g < groups.size(); ++g) {
    plan->options.push_back(options_of<typename Traits::Options>(groups[g], g));
    if (!grouped) {
      for (p = 0; const std::string& name : prepared.parameters) positions[g].emplace(name, p++);
      continue;
    }
    const Json& saved = document.at("param_groups").at(g);
    Traits::options(plan->options.back(), OptionReader{saved});
    for (const Json& name : saved.at("params")) {
      positions[g].emplace(name.get<std::string>(), p++);
    }
  }

  for_each_parameter(
      optimizer, names, [&](std::size_t g, const std::string& name, const at::Tensor& parameter) {
        const auto position = positions[g].find(name);
        if (position == positions[g].end()) {
          // DeepSpeed's groups have no parameters that are not trained.
          const bool frozen =
              grouped && document.at("type").is_null() && !parameter.requires_grad();
          if (frozen) {
            plan->states.emplace_back(state_key(parameter), nullptr);
            return;
          }
          fail(Errc::mismatch,
               "parameter '{}' is in group {} of the given optimizer but not of the "
               "checkpoint's; build the parameter groups as in the saved run",
               name, g);
        }
        prepared.matched[position->second] = 1;
        const Json* saved = grouped ? &document.at("param_groups").at(g) : nullptr;
        prepare_state<Traits>(optimizer, name, parameter, saved, find, prepared, *plan);
      });
  prepared.apply = [plan, &optimizer] { apply<Traits>(optimizer, *plan); };
  return prepared;
}

}  // namespace

Json optimizer_document(const Optimizer& optimizer, const ParameterNames& names) {
  return with_traits(optimizer, [&]<class Traits>(Traits) {
    Json groups = Json::array();
    for (std::size_t g = 0; g < optimizer.param_groups().size(); ++g) {
      Json group{{"params", Json::array()}};
      Traits::options(options_of<typename Traits::Options>(optimizer.param_groups()[g], g),
                      OptionWriter{group});
      groups.push_back(std::move(group));
    }
    for_each_parameter(optimizer, names,
                       [&](std::size_t g, const std::string& name, const at::Tensor&) {
                         groups[g]["params"].push_back(name);
                       });
    return Json{{"type", Traits::kName}, {"param_groups", std::move(groups)}};
  });
}

std::vector<OptimizerSlot> optimizer_slots(const Optimizer& optimizer,
                                           const ParameterNames& names) {
  return with_traits(optimizer, [&]<class Traits>(Traits) {
    std::vector<OptimizerSlot> slots;
    for_each_parameter(
        optimizer, names, [&](std::size_t, const std::string& name, const at::Tensor& parameter) {
          const auto it = optimizer.state().find(state_key(parameter));
          if (it == optimizer.state().end()) return;
          const auto& state = dynamic_cast<const typename Traits::State&>(*it->second);
          Traits::slots(state, SlotWriter{name, slots});
        });
    return slots;
  });
}

bool has_groups(const Json& document) { return document.contains("param_groups"); }

std::vector<std::string> saved_parameters(const Json& document) {
  std::vector<std::string> names;
  if (!has_groups(document)) return document.value("parameters", names);
  for (const Json& group : document.at("param_groups")) {
    for (const Json& name : group.at("params")) names.push_back(name.get<std::string>());
  }
  return names;
}

PreparedOptimizer prepare_optimizer(Optimizer& optimizer, const ParameterNames& names,
                                    const Json& document, const SlotFinder& find) {
  return with_traits(optimizer, [&]<class Traits>(Traits) {
    return prepare<Traits>(optimizer, names, document, find);
  });
}

}  // namespace cairn::detail
