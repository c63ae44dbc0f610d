#pragma once

#include <map>
#include <string>
#include <vector>

#include "cairn/manifest.hpp"
#include "formats/deepspeed/partitions.hpp"
#include "formats/table_bytes.hpp"
#include "formats/torch/state_file.hpp"
#include "formats/torch/values.hpp"

namespace cairn::detail::deepspeed {

/// Tells what the optimizer keeps once for a run of parameters, such as its step, and what its
/// groups are set to: `optimizer` (one value where all runs have the same, else a list) and
/// `param_groups` of the document `deepspeed`. Returns the first of these by run. Local. Errors:
/// io.
std::map<std::string, std::vector<torch::Json>> tell_optimizer(const Partition& partition,
                                                               const Manifest& manifest,
                                                               torch::Json& told);

/// Brings groups whose parameters DeepSpeed reordered (`round_robin_gradients`, which names them in
/// that order) into the order of the module, which is most likely that of the optimizer's groups;
/// a warning says so. Nothing where it did not. Local.
void undo_round_robin(const torch::StateFile& model, std::vector<std::vector<Parameter>>& groups,
                      Manifest& manifest);

/// Adds the document `optimizer` of a container, whose groups have their parameters by name.
/// `param_groups`: those of the optimizer, which number the runs; `groups`: the parameters in each
/// run; `steps`: how often each run was stepped, or nothing. There is no document where nobody
/// knows which group a parameter is in: where one is in two, or there are several groups, and their
/// numbers are not the runs'. Warnings tell what could not be kept. Local. Errors: unsafe.
void add_optimizer_document(const torch::Json& param_groups,
                            const std::vector<std::vector<Parameter>>& groups,
                            const std::vector<torch::Json>& steps, Manifest& manifest,
                            TableBytes& table_bytes);

}  // namespace cairn::detail::deepspeed
