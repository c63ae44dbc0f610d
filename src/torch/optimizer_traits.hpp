#pragma once

#include <c10/util/Type.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <array>
#include <typeinfo>

#include "base/throw.hpp"

namespace cairn::detail {

// What cairn knows about LibTorch's optimizers. `options` and `slots` call `visit(name, value)` for
// each option and each part of a parameter's state, under PyTorch's names; `kRequired` are the
// tensors without which a state can't be stepped.

struct SgdTraits {
  using Options = torch::optim::SGDOptions;
  using State = torch::optim::SGDParamState;
  static constexpr const char* kName = "SGD";
  static constexpr std::array kRequired{"momentum_buffer"};

  template <class T, class F>
  static void options(T& options, F&& visit) {
    visit("lr", options.lr());
    visit("momentum", options.momentum());
    visit("dampening", options.dampening());
    visit("weight_decay", options.weight_decay());
    visit("nesterov", options.nesterov());
  }
  template <class T, class F>
  static void slots(T& state, F&& visit) {
    visit("momentum_buffer", state.momentum_buffer());
  }
};

template <class O, class S>
struct AdamFamilyTraits {
  using Options = O;
  using State = S;
  static constexpr std::array kRequired{"step", "exp_avg", "exp_avg_sq"};

  template <class T, class F>
  static void options(T& options, F&& visit) {
    visit("lr", options.lr());
    visit("betas", options.betas());
    visit("eps", options.eps());
    visit("weight_decay", options.weight_decay());
    visit("amsgrad", options.amsgrad());
  }
  template <class T, class F>
  static void slots(T& state, F&& visit) {
    visit("step", state.step());
    visit("exp_avg", state.exp_avg());
    visit("exp_avg_sq", state.exp_avg_sq());
    visit("max_exp_avg_sq", state.max_exp_avg_sq());
  }
};
struct AdamTraits : AdamFamilyTraits<torch::optim::AdamOptions, torch::optim::AdamParamState> {
  static constexpr const char* kName = "Adam";
};
struct AdamWTraits : AdamFamilyTraits<torch::optim::AdamWOptions, torch::optim::AdamWParamState> {
  static constexpr const char* kName = "AdamW";
};

struct RmspropTraits {
  using Options = torch::optim::RMSpropOptions;
  using State = torch::optim::RMSpropParamState;
  static constexpr const char* kName = "RMSprop";
  static constexpr std::array kRequired{"square_avg"};

  template <class T, class F>
  static void options(T& options, F&& visit) {
    visit("lr", options.lr());
    visit("alpha", options.alpha());
    visit("eps", options.eps());
    visit("weight_decay", options.weight_decay());
    visit("momentum", options.momentum());
    visit("centered", options.centered());
  }
  template <class T, class F>
  static void slots(T& state, F&& visit) {
    visit("step", state.step());
    visit("square_avg", state.square_avg());
    visit("momentum_buffer", state.momentum_buffer());
    visit("grad_avg", state.grad_avg());
  }
};

struct AdagradTraits {
  using Options = torch::optim::AdagradOptions;
  using State = torch::optim::AdagradParamState;
  static constexpr const char* kName = "Adagrad";
  static constexpr std::array kRequired{"step", "sum"};

  template <class T, class F>
  static void options(T& options, F&& visit) {
    visit("lr", options.lr());
    visit("lr_decay", options.lr_decay());
    visit("weight_decay", options.weight_decay());
    visit("initial_accumulator_value", options.initial_accumulator_value());
    visit("eps", options.eps());
  }
  template <class T, class F>
  static void slots(T& state, F&& visit) {
    visit("step", state.step());
    visit("sum", state.sum());
  }
};

/// Calls `use` with the traits of the optimizer's type. Errors: unsupported.
template <class F>
auto with_traits(const torch::optim::Optimizer& optimizer, F&& use) {
  using namespace torch::optim;
  if (dynamic_cast<const SGD*>(&optimizer) != nullptr) return use(SgdTraits{});
  if (dynamic_cast<const Adam*>(&optimizer) != nullptr) return use(AdamTraits{});
  if (dynamic_cast<const AdamW*>(&optimizer) != nullptr) return use(AdamWTraits{});
  if (dynamic_cast<const RMSprop*>(&optimizer) != nullptr) return use(RmspropTraits{});
  if (dynamic_cast<const Adagrad*>(&optimizer) != nullptr) return use(AdagradTraits{});
  fail(
      Errc::unsupported,
      "an optimizer of type {} can't be saved or loaded; cairn knows SGD, Adam, AdamW, RMSprop and "
      "Adagrad",
      c10::demangle(typeid(optimizer).name()));
}

}  // namespace cairn::detail
