// A load of a trainer, step by step:
//
// 1. match     every rank finds what it was given in the checkpoint and prepares memory beside it
// 2. compare   what all ranks planned together is judged by the rules of the strategy
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

#include "pipeline/path_patterns.hpp"
#include "torch/agree.hpp"
#include "torch/match.hpp"
#include "torch/random.hpp"
#include "torch/scheduler.hpp"
#include "torch/share.hpp"

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

/// What any rank uses, on all ranks. Collective: the lengths follow from the checkpoint and the
/// settings alone.
void unite_votes(const Comm& comm, Match& match, std::vector<std::uint64_t>& kept_hits) {
  auto& used = match.used;
  auto& matched = match.optimizer.matched;
  std::vector<std::uint64_t> votes = used;
  votes.insert(votes.end(), matched.begin(), matched.end());
  votes.insert(votes.end(), kept_hits.begin(), kept_hits.end());
  votes.push_back(match.with_optimizer ? 1 : 0);
  comm.all_reduce_max(std::span<std::uint64_t>(votes));
  auto from = votes.begin();
  for (auto* part : {&used, &matched, &kept_hits}) {
    std::copy_n(from, part->size(), part->begin());
    from += static_cast<std::ptrdiff_t>(part->size());
  }
  match.with_optimizer = votes.back() != 0;
}

void check_optimizer(const Manifest& manifest, const Match& match) {
  std::vector<std::string> without;
  for (std::size_t p = 0; match.with_optimizer && p < match.optimizer.matched.size(); ++p) {
    if (match.optimizer.matched[p] == 0) without.push_back(match.optimizer.parameters[p]);
  }
  if (without.empty()) return;
  fail(Errc::mismatch,
       "the optimizer of '{}' steps {}, which the given optimizer does not have; "
       "build the parameter groups as in the saved run",
       manifest.path().string(), list_some(without));
}

/// Step 2. Collective.
void compare(const Comm& comm, const Manifest& manifest, const CheckpointNames& names,
             const LoadingConfig& loading, Match& match, CheckpointContext& context) {
  PathPatterns kept(loading.reset_layers);
  std::vector<std::uint64_t> hits;
  std::string mine;
  agree(comm, "load: compare", [&] {
    hits = kept.hits(match.model_names);
    mine = encode(match.notes);
  });
  unite_votes(comm, match, hits);
  const auto texts = share_texts(comm, "load: compare", mine);
  agree(comm, "load: compare", [&] {
    LoadNotes notes;
    for (const std::string& text : texts) unite(notes, decode_notes(text));
    require_hits(kept, hits, "checkpoint.loading.reset_layers", "module or parameter",
                 match.model_names);
    check_optimizer(manifest, match);
    const bool resharded = context.report.resharded;
    context.report = judge_load(manifest, names, match.used, notes, loading, match.with_optimizer);
    context.report.resharded = resharded;
    auto& warnings = context.warnings;
    warnings.insert(warnings.end(), notes.warnings.begin(), notes.warnings.end());
    for (const std::string& rule : names.idle_rules()) {
      warnings.push_back(fmt::format("the rename rule '{}' changes no name", rule));
    }
  });
}

/// Buffers never take gradients; integers can't.
void freeze(const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& tensor : tensors) {
    if (tensor.requires_grad()) tensor.requires_grad_(false);
  }
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

/// What the strategy says of progress.
void start_anew(const LoadingConfig& loading, CheckpointContext& context) {
  if (loading.type != LoadingType::cold_start) return;
  context.epoch = 0;
  context.global_step = 0;
  context.metrics.clear();
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
                          const RestoreSettings& settings) {
  const LoadingConfig& loading = settings.loading;
  const bool warm = loading.type == LoadingType::warm_start;
  CheckpointContext context;
  std::optional<CheckpointNames> names;
  Match match;
  std::optional<PreparedScheduler> scheduler;
  agree_torch(comm, "load: match", [&] {
    context = make_context(comm, manifest);
    names.emplace(manifest, loading.rename);
    match = match_trainer(manifest, *names, trainer, loading, settings.options);
    if (warm) scheduler = match_scheduler(manifest, trainer.scheduler);
  });
  compare(comm, manifest, *names, loading, match, context);
  std::optional<std::vector<std::byte>> random;
  if (warm) random = load_rank_blob(comm, manifest, "rng");
  agree(comm, "load: random state", [&] {
    if (random) check_random_state(*random);
  });

  // Only the user's own scheduler can refuse its state, so it is asked before any tensor changes.
  const bool own_scheduler = scheduler && trainer.scheduler->own_scheduler() != nullptr;
  try {
    agree(comm, "load: scheduler", [&] {
      if (own_scheduler) scheduler->apply();
    });
    context.report.cast = load_tensors(comm, manifest, match.targets, settings.load).casts;
  } catch (...) {
    if (own_scheduler) roll_back(*scheduler);
    throw;
  }
  agree_torch(comm, "load: finish", [&] {
    finish(match, scheduler, own_scheduler, random);
    if (loading.freeze_loaded) freeze(match.model_tensors);
    start_anew(loading, context);
    context.report.rng_restored = random.has_value();
  });
  return context;
}

}  // namespace cairn::detail
