#include "formats/torch/optimizer_names.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <string_view>
#include <utility>

namespace cairn::detail::torch {
namespace {

constexpr std::size_t kMostStates = 1'000'000;

/// Buffers that PyTorch's own modules have.
bool is_buffer(std::string_view name) {
  for (const std::string_view buffer : {"running_mean", "running_var", "num_batches_tracked"}) {
    if (name.ends_with(buffer)) return true;
  }
  return false;
}

std::string_view module_of(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : name.substr(0, dot);
}

/// How far the groups are filled, and what was done with the tensors of the module so far.
struct State {
  std::vector<std::uint32_t> filled;
  bool taken = false;
  bool skipped = false;
  auto operator<=>(const State&) const = default;
};

/// The best ways to a state.
struct Ways {
  std::size_t cost = 0;
  bool several = false;
  const State* from = nullptr;
  std::size_t group = 0;  // that the last tensor went to; number of groups: none
};

using Layer = std::map<State, Ways>;

void offer(Layer& layer, State state, const Ways& ways, std::size_t& states) {
  const auto [known, is_new] = layer.try_emplace(std::move(state), ways);
  if (is_new) {
    ++states;
  } else if (ways.cost < known->second.cost) {
    known->second = ways;
  } else if (ways.cost == known->second.cost) {
    known->second.several = true;
  }
}

/// Goes on to the next module: one that was taken in part costs.
void close_module(State& state, Ways& ways) {
  if (state.taken && state.skipped) ++ways.cost;
  state.taken = state.skipped = false;
}

}  // namespace

std::optional<std::vector<std::string>> optimizer_names(
    const std::vector<ModelTensor>& model, const std::vector<OptimizerParameter>& parameters) {
  std::vector<std::vector<std::size_t>> groups;  // positions of their parameters
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    groups.resize(std::max(groups.size(), parameters[p].group + 1));
    groups[parameters[p].group].push_back(p);
  }
  std::vector<Layer> layers(model.size() + 1);
  std::size_t states = 0;
  offer(layers[0], {std::vector<std::uint32_t>(groups.size()), false, false},
        {0, false, nullptr, groups.size()}, states);
  for (std::size_t t = 0; t < model.size(); ++t) {
    const bool last =
        t + 1 == model.size() || module_of(model[t].name) != module_of(model[t + 1].name);
    for (const auto& [state, ways] : layers[t]) {
      const std::size_t filled = [&] {
        std::size_t sum = 0;
        for (const std::uint32_t f : state.filled) sum += f;
        return sum;
      }();
      const auto go_on = [&](State next, std::size_t group) {
        Ways way{ways.cost, ways.several, &state, group};
        if (last) close_module(next, way);
        offer(layers[t + 1], std::move(next), way, states);
      };
      if (parameters.size() - filled < model.size() - t) {  // enough tensors are left without it
        State next = state;
        next.skipped = next.skipped || !is_buffer(model[t].name);
        go_on(std::move(next), groups.size());
      }
      for (std::size_t g = 0; g < groups.size() && !is_buffer(model[t].name); ++g) {
        if (state.filled[g] == groups[g].size()) continue;
        const auto& shape = parameters[groups[g][state.filled[g]]].shape;
        if (shape && *shape != model[t].shape) continue;
        State next = state;
        ++next.filled[g];
        next.taken = true;
        go_on(std::move(next), g);
      }
    }
    if (states > kMostStates) return std::nullopt;
  }
  if (layers.back().size() != 1) return std::nullopt;
  const auto& [end, ways] = *layers.back().begin();
  if (ways.several) return std::nullopt;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (end.filled[g] != groups[g].size()) return std::nullopt;
  }
  std::vector<std::string> names(parameters.size());
  const State* state = &end;
  for (std::size_t t = model.size(); t > 0; --t) {
    const Ways& way = layers[t].at(*state);
    if (way.group < groups.size()) {
      names[groups[way.group][way.from->filled[way.group]]] = model[t - 1].name;
    }
    state = way.from;
  }
  return names;
}

}  // namespace cairn::detail::torch
