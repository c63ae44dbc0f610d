#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "cairn/manifest.hpp"
#include "formats/deepspeed/partitions.hpp"
#include "formats/torch/state_file.hpp"
#include "formats/torch/values.hpp"

namespace cairn::detail::deepspeed {

// What is in `..._model_states.pt`. All functions are Local. Errors: corrupt.

/// The parameters in an ordered dict of names and shapes; none where there is no such dict.
std::vector<Parameter> parameters_of(const torch::StateFile& file, pickle::Ref dict);
/// The parameters that an optimizer trains, by its groups.
std::vector<std::vector<Parameter>> groups_of(const torch::StateFile& model);
/// Adds a tensor that lies whole in the file.
void add_whole(const torch::StateFile& file, const std::string& role, const std::string& name,
               pickle::Ref ref, Manifest& manifest);
/// Adds what rank 0's file holds whole; of stage 3 (`divided`) only buffers are.
void add_model(const torch::StateFile& model, bool divided, Manifest& manifest);
/// What the file says about the training: the document `deepspeed`.
torch::Json facts_of(const torch::StateFile& model);

}  // namespace cairn::detail::deepspeed
