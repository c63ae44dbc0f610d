#include "model.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/custom_function.h>
#include <xxhash.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "collectives.hpp"

namespace train_lm {
namespace {

constexpr std::int64_t kVocabulary = 256;
constexpr double kDropout = 0.1;
constexpr double kInitialDeviation = 0.02;

/// A range of one dimension of a parameter: what this rank holds of it.
struct Part {
  std::size_t dim = 0;
  std::int64_t start = 0;
  std::int64_t count = 0;
};

/// Makes the parameters and notes their placements.
class Parameters {
 public:
  Parameters(const Division& division, std::uint64_t seed, Placements& placements)
      : division_(division), seed_(seed), placements_(placements) {}

  const Division& division() const { return division_; }

  /// This rank's range of `units` units of `unit` rows or columns each, along `dim`.
  Part part(std::size_t dim, std::int64_t units, std::int64_t unit) const {
    const auto range =
        cairn::balanced_range(static_cast<std::uint64_t>(units), division_.parts, division_.index);
    return {dim, static_cast<std::int64_t>(range.start) * unit,
            static_cast<std::int64_t>(range.count) * unit};
  }

  at::Tensor normal(const std::string& name, std::vector<std::int64_t> shape,
                    std::optional<Part> part = {}) {
    at::Generator generator =
        at::detail::createCPUGenerator(XXH3_64bits_withSeed(name.data(), name.size(), seed_));
    at::Tensor whole = at::empty(shape, at::kFloat).normal_(0.0, kInitialDeviation, generator);
    return place(name, std::move(whole), part);
  }

  at::Tensor constant(const std::string& name, std::int64_t length, double value,
                      std::optional<Part> part = {}) {
    return place(name, at::full({length}, value, at::kFloat), part);
  }

 private:
  at::Tensor place(const std::string& name, at::Tensor whole, const std::optional<Part>& part) {
    const cairn::Shape shape(whole.sizes().begin(), whole.sizes().end());
    if (!part || division_.parts == 1) {
      placements_.insert_or_assign(name, cairn::Placement::replicated(shape));
      return whole;
    }
    cairn::Box box = cairn::Box::whole(shape);
    box.start[part->dim] = static_cast<std::uint64_t>(part->start);
    box.count[part->dim] = static_cast<std::uint64_t>(part->count);
    placements_.insert_or_assign(name, cairn::Placement::block(shape, box));
    return whole.narrow(static_cast<std::int64_t>(part->dim), part->start, part->count)
        .clone(at::MemoryFormat::Contiguous);
  }

  Division division_;
  std::uint64_t seed_;
  Placements& placements_;
};

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

at::Tensor summed_over(MPI_Comm comm, const at::Tensor& tensor) {
  at::Tensor sum = tensor.detach().clone(at::MemoryFormat::Contiguous);
  all_reduce_sum(comm, sum);
  return sum;
}

/// Enters a divided region: every rank goes on with the same input, so the input's gradient is the
/// sum of what the ranks return.
struct EnterDivided : torch::autograd::Function<EnterDivided> {
  static Variable forward(AutogradContext* context, const Variable& input, std::int64_t comm) {
    context->saved_data["comm"] = comm;
    return input.view_as(input);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const MPI_Comm comm = MPI_Comm_f2c(static_cast<MPI_Fint>(context->saved_data["comm"].toInt()));
    return {summed_over(comm, gradients[0]), Variable()};
  }
};

/// Leaves a divided region: the output is the sum of the ranks' partial results.
struct LeaveDivided : torch::autograd::Function<LeaveDivided> {
  static Variable forward(AutogradContext*, const Variable& partial, std::int64_t comm) {
    return summed_over(MPI_Comm_f2c(static_cast<MPI_Fint>(comm)), partial);
  }
  static variable_list backward(AutogradContext*, const variable_list& gradients) {
    return {gradients[0], Variable()};
  }
};

at::Tensor enter(const Division& division, const at::Tensor& input) {
  if (division.parts == 1) return input;
  return EnterDivided::apply(input, std::int64_t{MPI_Comm_c2f(division.comm)});
}

at::Tensor leave(const Division& division, const at::Tensor& partial) {
  if (division.parts == 1) return partial;
  return LeaveDivided::apply(partial, std::int64_t{MPI_Comm_c2f(division.comm)});
}

at::Tensor dropout(const torch::nn::Module& module, const at::Tensor& input) {
  return at::dropout(input, kDropout, module.is_training());
}

/// Weight and bias of a linear map or a normalisation.
struct Linear {
  at::Tensor weight;
  at::Tensor bias;
};

/// A module that only holds parameters, so that their names read `q_proj.weight`.
struct Holder : torch::nn::Module {
  at::Tensor add(const std::string& name, at::Tensor tensor) {
    return register_parameter(name, std::move(tensor));
  }
};

Linear hold(torch::nn::Module& module, const std::string& name, at::Tensor weight,
            at::Tensor bias) {
  auto holder = module.register_module(name, std::make_shared<Holder>());
  return {holder->add("weight", std::move(weight)), holder->add("bias", std::move(bias))};
}

/// Divided by its outputs: each rank computes its own features.
Linear column_linear(torch::nn::Module& module, Parameters& parameters, const std::string& prefix,
                     const std::string& name, std::int64_t in, std::int64_t out, const Part& part) {
  const std::string full = prefix + "." + name;
  return hold(module, name, parameters.normal(full + ".weight", {out, in}, part),
              parameters.constant(full + ".bias", out, 0.0, part));
}

/// Divided by its inputs: each rank has a partial sum of all features; the bias is whole.
Linear row_linear(torch::nn::Module& module, Parameters& parameters, const std::string& prefix,
                  const std::string& name, std::int64_t in, std::int64_t out, const Part& part) {
  const std::string full = prefix + "." + name;
  return hold(module, name, parameters.normal(full + ".weight", {out, in}, part),
              parameters.constant(full + ".bias", out, 0.0));
}

Linear norm(torch::nn::Module& module, Parameters& parameters, const std::string& full,
            const std::string& name, std::int64_t width) {
  return hold(module, name, parameters.constant(full + ".weight", width, 1.0),
              parameters.constant(full + ".bias", width, 0.0));
}

/// Causal self-attention, divided by heads. A rank may have none.
class Attention : public torch::nn::Module {
 public:
  Attention(const ModelShape& shape, Parameters& parameters, const std::string& prefix)
      : division_(parameters.division()), head_width_(shape.width / shape.heads) {
    const std::int64_t width = shape.width;
    const Part rows = parameters.part(0, shape.heads, head_width_);
    const Part columns = parameters.part(1, shape.heads, head_width_);
    heads_ = rows.count / head_width_;
    query_ = column_linear(*this, parameters, prefix, "q_proj", width, width, rows);
    key_ = column_linear(*this, parameters, prefix, "k_proj", width, width, rows);
    value_ = column_linear(*this, parameters, prefix, "v_proj", width, width, rows);
    out_ = row_linear(*this, parameters, prefix, "out_proj", width, width, columns);
  }

  at::Tensor forward(const at::Tensor& normed) {
    const std::int64_t samples = normed.size(0);
    const std::int64_t length = normed.size(1);
    const at::Tensor input = enter(division_, normed);
    const auto heads_of = [&](const Linear& linear) {
      return at::linear(input, linear.weight, linear.bias)
          .view({samples, length, heads_, head_width_})
          .transpose(1, 2);
    };
    const at::Tensor query = heads_of(query_);
    const at::Tensor key = heads_of(key_);
    const at::Tensor value = heads_of(value_);
    const at::Tensor future = at::ones({length, length}, at::kBool).triu(1);
    const double scale = 1.0 / std::sqrt(static_cast<double>(head_width_));
    const at::Tensor weights =
        at::softmax(at::matmul(query, key.transpose(-2, -1))
                        .mul(scale)
                        .masked_fill(future, -std::numeric_limits<float>::infinity()),
                    -1);
    const at::Tensor mixed =
        at::matmul(weights, value).transpose(1, 2).reshape({samples, length, heads_ * head_width_});
    return leave(division_, at::linear(mixed, out_.weight)) + out_.bias;
  }

 private:
  Division division_;
  std::int64_t head_width_;
  std::int64_t heads_ = 0;
  Linear query_;
  Linear key_;
  Linear value_;
  Linear out_;
};

/// The feed-forward part, divided by hidden units.
class Mlp : public torch::nn::Module {
 public:
  Mlp(const ModelShape& shape, Parameters& parameters, const std::string& prefix)
      : division_(parameters.division()) {
    const std::int64_t hidden = 4 * shape.width;
    up_ = column_linear(*this, parameters, prefix, "up", shape.width, hidden,
                        parameters.part(0, hidden, 1));
    down_ = row_linear(*this, parameters, prefix, "down", hidden, shape.width,
                       parameters.part(1, hidden, 1));
  }

  at::Tensor forward(const at::Tensor& normed) {
    const at::Tensor units = at::gelu(at::linear(enter(division_, normed), up_.weight, up_.bias));
    return leave(division_, at::linear(units, down_.weight)) + down_.bias;
  }

 private:
  Division division_;
  Linear up_;
  Linear down_;
};

at::Tensor layer_norm(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
  return at::layer_norm(input, {input.size(-1)}, weight, bias);
}

}  // namespace

class Block : public torch::nn::Module {
 public:
  Block(const ModelShape& shape, Parameters& parameters, const std::string& prefix) {
    first_norm_ = norm(*this, parameters, prefix + ".norm1", "norm1", shape.width);
    attention_ =
        register_module("attn", std::make_shared<Attention>(shape, parameters, prefix + ".attn"));
    second_norm_ = norm(*this, parameters, prefix + ".norm2", "norm2", shape.width);
    mlp_ = register_module("mlp", std::make_shared<Mlp>(shape, parameters, prefix + ".mlp"));
  }

  at::Tensor forward(const at::Tensor& input) {
    const at::Tensor middle =
        input + dropout(*this, attention_->forward(
                                   layer_norm(input, first_norm_.weight, first_norm_.bias)));
    return middle + dropout(*this, mlp_->forward(
                                       layer_norm(middle, second_norm_.weight, second_norm_.bias)));
  }

 private:
  Linear first_norm_;
  std::shared_ptr<Attention> attention_;
  Linear second_norm_;
  std::shared_ptr<Mlp> mlp_;
};

LanguageModel::LanguageModel(const ModelShape& shape, const Division& division,
                             std::uint64_t seed) {
  Parameters parameters(division, seed, placements_);
  const auto embedding = [&](const std::string& name, std::int64_t rows) {
    return register_module(name, std::make_shared<Holder>())
        ->add("weight", parameters.normal(name + ".weight", {rows, shape.width}));
  };
  token_embedding_ = embedding("token_embedding", kVocabulary);
  position_embedding_ = embedding("position_embedding", shape.context);
  for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
    const std::string name = "block" + std::to_string(layer);
    blocks_.push_back(register_module(name, std::make_shared<Block>(shape, parameters, name)));
  }
  const Linear last_norm = norm(*this, parameters, "norm", "norm", shape.width);
  norm_weight_ = last_norm.weight;
  norm_bias_ = last_norm.bias;
  head_ = embedding("head", kVocabulary);
}

at::Tensor LanguageModel::loss_sum(const at::Tensor& inputs, const at::Tensor& targets) {
  const at::Tensor positions = position_embedding_.narrow(0, 0, inputs.size(1));
  at::Tensor state = dropout(*this, at::embedding(token_embedding_, inputs) + positions);
  for (const std::shared_ptr<Block>& block : blocks_) state = block->forward(state);
  const at::Tensor logits = at::linear(layer_norm(state, norm_weight_, norm_bias_), head_);
  return at::cross_entropy_loss(logits.view({-1, kVocabulary}), targets.view(-1), {},
                                at::Reduction::Sum);
}

}  // namespace train_lm
