#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cairn/shape.hpp"

namespace cairn::detail::torch {

/// A tensor of a model's state dict.
struct ModelTensor {
  std::string name;
  Shape shape;
};

/// One parameter of an optimizer; its shape, where the optimizer holds state of that shape.
struct OptimizerParameter {
  std::size_t group = 0;
  std::optional<Shape> shape;
};

/// The names of an optimizer's parameters, which PyTorch's optimizers do not save, in the order of
/// its groups: the only way to find the parameters, in their order within each group, among the
/// model's tensors such that shapes agree, no buffer is one, and as few modules as possible are in
/// it in part. Nothing where there is no way or several. Local.
std::optional<std::vector<std::string>> optimizer_names(
    const std::vector<ModelTensor>& model, const std::vector<OptimizerParameter>& parameters);

}  // namespace cairn::detail::torch
