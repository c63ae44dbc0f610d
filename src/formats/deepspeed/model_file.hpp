#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "cairn/manifest.hpp"
#include "formats/deepspeed/partitions.hpp"
#include "formats/table_bytes.hpp"
#include "formats/torch/state_file.hpp"
#include "formats/torch/values.hpp"

namespace cairn::detail::deepspeed {

// What is in `..._model_states.pt`. `table_bytes` counts parameters, names and tensors. All
// functions are Local. Errors: corrupt, unsafe.

/// The parameters in an ordered dict of names and shapes; none where there is no such dict.
std::vector<Parameter> parameters_of(const torch::StateFile& file, pickle::Ref dict,
                                     TableBytes& table_bytes);
/// The parameters that an optimizer trains, by its groups.
std::vector<std::vector<Parameter>> groups_of(const torch::StateFile& model,
                                              TableBytes& table_bytes);
/// Adds a tensor that lies whole in the file.
void add_whole(const torch::StateFile& file, const std::string& role, const std::string& name,
               pickle::Ref ref, Manifest& manifest, TableBytes& table_bytes);
/// Adds the weights that the model computes with. Not for stage 3, which divides them among ranks.
/// What is no tensor is left out, with a warning: state of modules that keep more than tensors.
void add_module(const torch::StateFile& model, Manifest& manifest, TableBytes& table_bytes);
/// Adds what the optimizer does not have: buffers and, where stage 3 has not `divided` them, frozen
/// parameters.
void add_untrained(const torch::StateFile& model, bool divided, Manifest& manifest,
                   TableBytes& table_bytes);
/// What the file says about the training: the document `deepspeed`, of which `client_state` is what
/// the trainer added.
torch::Json facts_of(const torch::StateFile& model, TableBytes& table_bytes);
/// Adds what the file holds beside the weights, schedules and what the trainer added among it: the
/// documents that tell of values, as those of a file of PyTorch's do, and tensors as
/// `client_state/<keys>`. All of it is left out, with a warning, where cairn cannot read a tensor.
void add_values(const torch::StateFile& model, Manifest& manifest, TableBytes& table_bytes);
/// Names that stand for others, by facts_of(), as the document `model` of a container says it.
void add_aliases(const torch::Json& facts, Manifest& manifest);

}  // namespace cairn::detail::deepspeed
