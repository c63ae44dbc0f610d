// A load of a trainer, step by step:
//
// 1. match     every rank finds what it was given in the checkpoint and prepares memory beside it
// 2. compare   the ranks together must use all of the model's and the optimizer's tensors
// 3. schedule  the user's scheduler takes its state; it may refuse, later failures take it back
// 4. move      load_tensors checks all digests, then fills the tensors' own memory or staged copies
// 5. finish    staged copies, quantizers, optimizer options and state, scheduler, random state
//
// Until the bytes move in 4 nothing has changed. From there on only the machine can fail (a disk
// that stops reading, no memory): the tensors are then partly filled, and the Error says so.
#include "torch/restore.hpp"

#include <ATen/quantized/Quantizer.h>

#include <algorithm>
#include <optional>
#include <span>
#include <string_view>

#include "torch/agree.hpp"
#include "torch/match.hpp"
#include "torch/random.hpp"
#include "torch/scheduler.hpp"

namespace cairn::detail {
namespace {

int saved_world_size(const Manifest& manifest) {
  if (manifest.commit.writers > 0) return manifest.commit.writers;
  const auto topology = find_document(manifest, "topology");
  if (!topology) return 0;
  return reading_document(manifest, "topology",
                          [&] { return topology->at("world_size").get<int>(); });
}

/// The facts, without the report of tensors. Local.
CheckpointContext make_context(const Comm& comm, const Manifest& manifest) {
  CheckpointContext context;
  context.path = manifest.path();
  context.format = manifest.format;
  context.format_version = manifest.commit.format_version;
  context.documents = manifest.documents;
  context.warnings = manifest.warnings;
  read_context(manifest, context);
  context.saved_world_size = saved_world_size(manifest);
  context.report.resharded = context.saved_world_size != comm.size();
  return context;
}

std::optional<PreparedScheduler> match_scheduler(const Manifest& manifest,
                                                 const SchedulerRef* scheduler) {
  if (scheduler == nullptr) return std::nullopt;
  const auto document = find_document(manifest, "scheduler");
  if (!document) {
    fail(Errc::mismatch,
         "'{}' has no scheduler's state; load without a scheduler, or use a checkpoint "
         "that was saved with one",
         manifest.path().string());
  }
  return reading_document(manifest, "scheduler",
                          [&] { return prepare_scheduler(*scheduler, *document); });
}

/// What any rank uses, on all ranks. Collective: the lengths follow from the checkpoint alone.
void unite(const Comm& comm, Match& match) {
  auto& used = match.used;
  auto& matched = match.optimizer.matched;
  std::vector<std::uint64_t> votes = used;
  votes.insert(votes.end(), matched.begin(), matched.end());
  votes.push_back(match.with_optimizer ? 1 : 0);
  comm.all_reduce_max(std::span<std::uint64_t>(votes));
  const auto end_of_used = votes.begin() + static_cast<std::ptrdiff_t>(used.size());
  std::copy(votes.begin(), end_of_used, used.begin());
  std::copy(end_of_used, votes.end() - 1, matched.begin());
  match.with_optimizer = votes.back() != 0;
}

/// Step 2. Collective.
void compare(const Comm& comm, const Manifest& manifest, Match& match, LoadReport& report) {
  unite(comm, match);
  agree(comm, "load: compare", [&] {
    std::vector<std::string> without;
    std::vector<std::string> unexpected;
    for (std::size_t p = 0; match.with_optimizer && p < match.optimizer.matched.size(); ++p) {
      if (match.optimizer.matched[p] == 0) without.push_back(match.optimizer.parameters[p]);
    }
    if (!without.empty()) {
      fail(Errc::mismatch,
           "the optimizer of '{}' steps {}, which the given optimizer does not have; "
           "build the parameter groups as in the saved run",
           manifest.path().string(), list_some(without));
    }
    for (std::size_t t = 0; t < manifest.tensors.size(); ++t) {
      const std::string_view name = manifest.tensors[t].name;
      if (match.used[t] == Match::kLoaded) report.loaded.emplace_back(name);
      if (match.used[t] != Match::kUnused) continue;
      const bool ours =
          name.starts_with("model/") || (match.with_optimizer && name.starts_with("optimizer/"));
      if (ours) unexpected.emplace_back(name);
    }
    if (!unexpected.empty()) {
      fail(Errc::mismatch,
           "'{}' holds {}, which the given model{} does not have; nothing was loaded",
           manifest.path().string(), list_some(unexpected),
           match.with_optimizer ? " or optimizer" : "");
    }
  });
}

/// Step 5. Local.
void finish(Match& match, std::optional<PreparedScheduler>& scheduler, bool own_scheduler,
            const std::optional<std::vector<std::byte>>& random) {
  for (const TensorMemory& memory : match.memories) {
    const auto quantizer = match.quantizers.find(memory.tensor.unsafeGetTensorImpl());
    if (quantizer != match.quantizers.end()) {
      at::set_quantizer_(memory.tensor, quantizer->second);
      if (memory.staged()) at::set_quantizer_(memory.dense, quantizer->second);
    }
    finish_load(memory);
  }
  if (match.optimizer.apply) match.optimizer.apply();
  if (scheduler && !own_scheduler) scheduler->apply();
  if (random) set_random_state(*random);
}

/// Adds every warning that any rank has, once, in the order of the ranks. Collective.
void share_warnings(const Comm& comm, const std::vector<std::string>& mine,
                    std::vector<std::string>& all) {
  std::string text;
  agree(comm, "load: warnings", [&] { text = Json(mine).dump(); });
  const auto gathered = comm.gather(std::as_bytes(std::span(text)));
  agree(comm, "load: warnings", [&] {
    if (!comm.is_root()) return;
    std::vector<std::string> united;
    for (const auto& bytes : gathered) {
      const auto* first = reinterpret_cast<const char*>(bytes.data());
      for (const auto& warning :
           Json::parse(first, first + bytes.size()).get<std::vector<std::string>>()) {
        if (std::find(united.begin(), united.end(), warning) == united.end()) {
          united.push_back(warning);
        }
      }
    }
    text = Json(united).dump();
  });
  comm.broadcast(text);
  const auto united = Json::parse(text).get<std::vector<std::string>>();
  all.insert(all.end(), united.begin(), united.end());
}

void roll_back(const PreparedScheduler& scheduler) noexcept {
  try {
    scheduler.rollback();
  } catch (...) {
    // A scheduler that refuses its own state must not hide the error that all ranks agreed on.
  }
}

}  // namespace

CheckpointContext restore(const Comm& comm, const Manifest& manifest, const TrainerState& trainer,
                          const ManagerOptions& options, const LoadOptions& load) {
  CheckpointContext context;
  Match match;
  std::optional<PreparedScheduler> scheduler;
  agree_torch(comm, "load: match", [&] {
    context = make_context(comm, manifest);
    match = match_trainer(manifest, trainer, options);
    scheduler = match_scheduler(manifest, trainer.scheduler);
  });
  compare(comm, manifest, match, context.report);
  const auto random = load_rank_blob(comm, manifest, "rng");
  agree(comm, "load: random state", [&] {
    if (random) check_random_state(*random);
  });

  // Only the user's own scheduler can refuse its state, so it is asked before any tensor changes.
  const bool own_scheduler = scheduler && trainer.scheduler->own_scheduler() != nullptr;
  try {
    agree(comm, "load: scheduler", [&] {
      if (own_scheduler) scheduler->apply();
    });
    load_tensors(comm, manifest, match.targets, load);
  } catch (...) {
    if (own_scheduler) roll_back(*scheduler);
    throw;
  }
  agree_torch(comm, "load: finish", [&] { finish(match, scheduler, own_scheduler, random); });

  context.report.rng_restored = random.has_value();
  share_warnings(comm, match.warnings, context.warnings);
  return context;
}

}  // namespace cairn::detail
