#pragma once

#include "checkpoint/convert_documents.hpp"
#include "checkpoint/convert_plan.hpp"

namespace cairn::detail {

/// Plans a file of PyTorch's for the tensors that `plan` has: the object that it is to hold, as it
/// was where the source tells, else a dict {model, optimizer, epoch, ...} or that of Lightning; and
/// its storages. Local. Errors: those of convert_checkpoint.
void plan_torch(const Manifest& source, const Travelling& travelling, const ConvertOptions& options,
                ConvertPlan& plan);

/// The storages: tensors of one storage share one again, and views keep their strides, as far as
/// that takes no more than twice their bytes. `aliases`: lists of names. Local.
void plan_storages(const Manifest& source, const nlohmann::ordered_json& aliases,
                   ConvertPlan& plan);

/// Where the keys of another training go in Lightning's checkpoints: {from, to}. `documents` are
/// those of a tree of `format`. What stays where it is joins `left_out`. Local.
std::vector<std::pair<std::vector<PathKey>, std::vector<PathKey>>> lightning_moves(
    const std::string& format, const std::map<std::string, std::string>& documents,
    std::vector<LeftOut>& left_out);

/// Whether a path lies at or below another. Local.
bool starts_with(const std::vector<PathKey>& path, const std::vector<PathKey>& start);

/// Paths of those `optimizers` (the document) of whose state no tensor is taken; one of a list
/// stays where another does, for lists count from 0. `tensors`: of the source, and whether they are
/// taken. Local.
std::vector<std::vector<PathKey>> optimizers_without_state(
    const nlohmann::ordered_json& optimizers,
    const std::vector<std::pair<std::vector<PathKey>, bool>>& tensors);

/// Adds the groups of an optimizer, at `keys`: those of a container's document `optimizer`, whose
/// parameters get numbers as in PyTorch. State of them that does not count its own steps gets its
/// group's. Local.
void add_optimizer(torch::NewFile& file, const std::vector<PathKey>& keys,
                   nlohmann::ordered_json groups);

/// Adds what Lightning's checkpoints have and `tree` has not: epoch and step are what `documents`
/// say, or else `step`. Local.
void complete_lightning(torch::Tree& tree, const std::map<std::string, std::string>& documents,
                        std::uint64_t step);

}  // namespace cairn::detail
