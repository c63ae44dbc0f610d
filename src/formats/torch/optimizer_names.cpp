#include "formats/torch/optimizer_names.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <string_view>
#include <utility>

namespace cairn::detail::torch {
namespace {

/// In all states together: their groups' numbers, and what a state takes beside them.
constexpr std::size_t kMostNumbers = 33'000'000;
constexpr std::size_t kNumbersOfState = 32;

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

class Search {
 public:
  Search(const std::vector<ModelTensor>& model, const std::vector<OptimizerParameter>& parameters)
      : model_(model), parameters_(parameters), layers_(model.size() + 1) {
    for (std::size_t p = 0; p < parameters.size(); ++p) {
      groups_.resize(std::max(groups_.size(), parameters[p].group + 1));
      groups_[parameters[p].group].push_back(p);
    }
  }

  /// False where there are too many ways to look at.
  bool run() {
    layers_[0].try_emplace({std::vector<std::uint32_t>(groups_.size()), false, false},
                           Ways{0, false, nullptr, groups_.size()});
    for (std::size_t t = 0; t < model_.size(); ++t) {
      for (const auto& entry : layers_[t]) {
        place(t, entry.first, entry.second);
        if (full()) return false;
      }
    }
    return true;
  }

  /// The names on the only best way to all parameters.
  std::optional<std::vector<std::string>> names() const {
    if (layers_.back().size() != 1) return std::nullopt;
    const auto& [end, ways] = *layers_.back().begin();
    if (ways.several || filled(end) != parameters_.size()) return std::nullopt;
    std::vector<std::string> names(parameters_.size());
    const State* state = &end;
    for (std::size_t t = model_.size(); t > 0; --t) {
      const Ways& way = layers_[t].at(*state);
      if (way.group < groups_.size()) {
        names[groups_[way.group][way.from->filled[way.group]]] = model_[t - 1].name;
      }
      state = way.from;
    }
    return names;
  }

 private:
  static std::size_t filled(const State& state) {
    return std::accumulate(state.filled.begin(), state.filled.end(), std::size_t{0});
  }

  bool full() const { return states_ * (groups_.size() + kNumbersOfState) > kMostNumbers; }

  /// All that can be done with tensor `t`: it is no parameter, or the next one of some group.
  void place(std::size_t t, const State& state, const Ways& ways) {
    const bool buffer = is_buffer(model_[t].name);
    if (parameters_.size() - filled(state) < model_.size() - t) {  // enough are left without it
      State next = state;
      next.skipped = next.skipped || !buffer;
      go_on(t, std::move(next), {ways.cost, ways.several, &state, groups_.size()});
    }
    for (std::size_t g = 0; g < groups_.size() && !buffer && !full(); ++g) {
      if (state.filled[g] == groups_[g].size()) continue;
      const auto& shape = parameters_[groups_[g][state.filled[g]]].shape;
      if (shape && *shape != model_[t].shape) continue;
      State next = state;
      ++next.filled[g];
      next.taken = true;
      go_on(t, std::move(next), {ways.cost, ways.several, &state, g});
    }
  }

  void go_on(std::size_t t, State next, Ways ways) {
    const bool last =
        t + 1 == model_.size() || module_of(model_[t].name) != module_of(model_[t + 1].name);
    if (last) {
      if (next.taken && next.skipped) ++ways.cost;
      next.taken = next.skipped = false;
    }
    const auto [known, is_new] = layers_[t + 1].try_emplace(std::move(next), ways);
    if (is_new) {
      ++states_;
    } else if (ways.cost < known->second.cost) {
      known->second = ways;
    } else if (ways.cost == known->second.cost) {
      known->second.several = true;
    }
  }

  const std::vector<ModelTensor>& model_;
  const std::vector<OptimizerParameter>& parameters_;
  std::vector<std::vector<std::size_t>> groups_;  // positions of their parameters
  std::vector<Layer> layers_;                     // by tensor of the model
  std::size_t states_ = 0;
};

}  // namespace

std::optional<std::vector<std::string>> optimizer_names(
    const std::vector<ModelTensor>& model, const std::vector<OptimizerParameter>& parameters) {
  if (parameters.empty() || parameters.size() > model.size()) return std::nullopt;
  Search search(model, parameters);
  if (!search.run()) return std::nullopt;
  return search.names();
}

}  // namespace cairn::detail::torch
