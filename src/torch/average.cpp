#include "cairn/average.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/throw.hpp"
#include "torch/model.hpp"
#include "torch/tensor_memory.hpp"

namespace cairn {

using namespace detail;
using Json = nlohmann::json;

WeightAverage::WeightAverage(const torch::nn::Module& model, double decay,
                             PlacementPolicy placement)
    : decay_(decay), placement_(std::move(placement)) {
  if (!(decay >= 0 && decay <= 1)) {
    fail(Errc::usage, "a weight average's decay is {}; it must be from 0 to 1", decay);
  }
  const at::NoGradGuard no_grad;
  for (const ModelTensor& item : model_tensors(model)) {
    // Buffers are no weights: an export takes them as they are.
    if (!item.tensor.requires_grad() || !item.tensor.is_floating_point()) continue;
    parameters_.push_back(item.tensor);
    at::Tensor average = at::empty(item.tensor.sizes(), item.tensor.options().requires_grad(false));
    average.copy_(item.tensor);
    averages_.push_back({item.names.front(), average});
  }
}

void WeightAverage::update() {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    averages_[i].tensor.lerp_(parameters_[i], 1 - decay_);
  }
  ++updates_;
}

at::Tensor WeightAverage::average_of(const at::Tensor& parameter) const {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (parameters_[i].is_same(parameter)) return averages_[i].tensor;
  }
  return {};
}

std::string WeightAverage::state() const {
  return Json{{"decay", decay_}, {"updates", updates_}}.dump();
}

void WeightAverage::load(const std::string& state) {
  try {
    updates_ = Json::parse(state).at("updates").get<std::uint64_t>();
  } catch (const Json::exception& error) {
    fail(Errc::corrupt, "the state of a weight average can't be understood ({})", error.what());
  }
}

std::vector<MutableTensorView> WeightAverage::tensors() {
  std::vector<MutableTensorView> views;
  for (const NamedTensor& average : averages_) {
    const std::string name = model_tensor_name(average.name);
    const TensorMemory memory = memory_for_save(name, average.tensor);
    if (memory.staged()) {
      fail(Errc::unsupported, "the average of '{}' has no memory of its own to save", average.name);
    }
    views.push_back({escape_component(average.name), memory.dtype, place(placement_, name, memory),
                     memory.data()});
  }
  return views;
}

}  // namespace cairn
