#pragma once

#include <mpi.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cairn/placement.hpp"

namespace train_lm {

struct ModelShape {
  std::int64_t layers = 0;
  std::int64_t width = 0;
  std::int64_t heads = 0;
  std::int64_t context = 0;
};

/// Which part of the divided weights a rank holds. One part: the model is whole on every rank.
struct Division {
  MPI_Comm comm = MPI_COMM_SELF;
  int parts = 1;
  int index = 0;
};

/// Where this rank's part of each parameter lies, by the parameter's name.
using Placements = std::map<std::string, cairn::Placement>;

class Block;

/// A byte-level causal Transformer, pre-norm, with learned positions. Its weights at the start
/// depend on the seed and their names alone, never on the division. In a divided model forward and
/// backward passes are collective on Division::comm; dropout acts on undivided activations only, so
/// equal random states on all ranks give equal masks.
class LanguageModel : public torch::nn::Module {
 public:
  LanguageModel(const ModelShape& shape, const Division& division, std::uint64_t seed);

  /// Sum over all bytes of the cross entropy. `inputs` and `targets` are int64 [samples, context].
  at::Tensor loss_sum(const at::Tensor& inputs, const at::Tensor& targets);

  const Placements& placements() const { return placements_; }

 private:
  Placements placements_;
  at::Tensor token_embedding_;
  at::Tensor position_embedding_;
  std::vector<std::shared_ptr<Block>> blocks_;
  at::Tensor norm_weight_;
  at::Tensor norm_bias_;
  at::Tensor head_;
};

}  // namespace train_lm
