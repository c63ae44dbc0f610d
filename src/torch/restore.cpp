// A load of a trainer, step by step:
//
// 0. modifiers are checked as far as that goes, and adapters made that are not the model's yet
// 1. match     every rank finds what it was given in the checkpoint and prepares memory beside it
// 2. compare   what all ranks planned together is judged by the rules of the strategy
// 3. schedule  the user's scheduler takes its state; it may refuse, later failures take it back
// 4. move      load_tensors checks all digests, then fills the tensors' own memory or staged copies
// 5. finish    staged copies, quantizers, modifiers; then optimizer options and state, scheduler,
//              random state
//
// Until the bytes move in 4 nothing has changed. From there on only the machine can fail (a disk
// that stops reading, or is too slow for pipeline.timeout; a file that another program cuts; no
// memory for what adapters compute with), and modules of the program's own that `reset` calls: the
// tensors are then filled, or partly, and the Error says so. With keep_copy, and where there are
// modifiers of the program's own, which may throw, a copy of everything is made before 4, and put
// back.
#include "torch/restore.hpp"

#include <ATen/quantized/Quantizer.h>

#include <algorithm>
#include <optional>
#include <span>
#include <string_view>

#include "checkpoint/load_steps.hpp"
#include "pipeline/foreign.hpp"
#include "pipeline/path_patterns.hpp"
#include "torch/agree.hpp"
#include "torch/lineage.hpp"
#include "torch/match.hpp"
#include "torch/modify.hpp"
#include "torch/random.hpp"
#include "torch/rescale.hpp"
#include "torch/scheduler.hpp"
#include "torch/share.hpp"
#include "torch/snapshot.hpp"
#include "torch/stage.hpp"

namespace cairn::detail {
namespace {

/// Of the training; 0 where nobody knows: writers of a converted file are those of the conversion.
int saved_world_size(const Manifest& manifest) {
  const auto topology = find_document(manifest, "topology");
  if (!topology) return manifest.commit.writers;
  return reading_document(manifest, "topology", [&] {
    if (topology->value("converted", false)) return 0;
    if (manifest.commit.writers > 0) return manifest.commit.writers;
    return topology->at("world_size").get<int>();
  });
}

/// The facts, without the report of tensors. Local.
CheckpointContext make_context(const Manifest& manifest) {
  CheckpointContext context;
  context.path = manifest.path();
  context.format = manifest.format;
  context.format_version = manifest.commit.format_version;
  context.documents = manifest.documents;
  context.warnings = manifest.warnings;
  read_context(manifest, context);
  context.lineage = read_lineage(manifest);
  context.saved_world_size = saved_world_size(manifest);
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
    context.report = judge_load(manifest, names, match.used, notes, loading, match.with_optimizer);
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

/// What of the move was staged. Local.
void finish(const Match& match) {
  for (const TensorMemory& memory : match.memories) {
    const auto quantizer = match.quantizers.find(memory.tensor.unsafeGetTensorImpl());
    if (quantizer != match.quantizers.end()) {
      at::set_quantizer_(memory.tensor, quantizer->second);
      if (memory.staged()) at::set_quantizer_(memory.dense, quantizer->second);
    }
    finish_load(memory);
  }
}

/// What the strategy says of progress.
void start_anew(const LoadingConfig& loading, CheckpointContext& context) {
  if (loading.type != LoadingType::cold_start && !loading.reset_progress) return;
  context.epoch = 0;
  context.global_step = 0;
  context.metrics.clear();
}

std::string rng_left(int saved, int ranks) {
  if (saved == ranks || saved == 0) return "left as it is: the checkpoint has none";
  return fmt::format("left as it is: {} ranks saved one each, and there are {}", saved, ranks);
}

/// What users should know of modifiers beside what these report themselves.
void warn_of_modifiers(const Config& config, const TrainerState& trainer,
                       const Modification& modification, LoadNotes& notes) {
  const bool warm = config.loading.value_or(LoadingConfig{}).type == LoadingType::warm_start;
  const bool resets = std::any_of(
      config.modifiers.begin(), config.modifiers.end(),
      [](const Modifier& modifier) { return std::holds_alternative<ResetModifier>(modifier); });
  if (warm && resets) {
    notes.warnings.emplace_back(
        "a reset modifier acts after a warm start: what the saved run learnt there is given up");
  }
  if (trainer.optimizer != nullptr && !modification.adapters.empty()) {
    notes.warnings.emplace_back(
        "the given optimizer does not step the new adapters; call prepare_model before it is "
        "built");
  }
}

/// A load on its way: what one step finds out, the next takes.
class Restoration {
 public:
  Restoration(const Comm& comm, const Manifest& manifest, const TrainerState& trainer,
              const RestoreSettings& settings)
      : comm_(comm),
        manifest_(manifest),
        trainer_(trainer),
        settings_(settings),
        warm_(settings.loading.type == LoadingType::warm_start) {}

  /// Steps 1 and 2. Collective.
  void check() {
    Trace& trace = settings_.trace;
    modification_ = stage(comm_, trace, "check modifiers", [&] {
      return prepare_modifiers(comm_, trainer_.model, settings_.config.modifiers,
                               ModifierChoice::all, settings_.adapters);
    });
    stage(comm_, trace, "match", [&] { match(); });
    stage(comm_, trace, "compare", [&] {
      compare(comm_, manifest_, *names_, settings_.loading, match_, context_);
      if (warm_) random_ = load_rank_blob(comm_, manifest_, "rng");
      if (states_) states_->read_blobs(comm_);
      agree(comm_, "load: random state", [&] {
        if (random_) check_random_state(*random_);
      });
    });
  }

  /// Steps 3 and 4. Collective. Only the user's own scheduler can refuse its state, so it is asked
  /// before any tensor changes.
  void move() {
    own_scheduler_ = scheduler_ && trainer_.scheduler->own_scheduler() != nullptr;
    agree_torch(comm_, "load: move", [&] { keep_what_is(); });
    try {
      agree(comm_, "load: scheduler", [&] {
        if (own_scheduler_) scheduler_->apply();
        if (states_) states_->apply();
      });
      const LoadResult result = load_tensors(
          comm_, manifest_, match_.targets, settings_.load, [&] { settings_.changed = true; },
          before_ ? "a copy of what was there before is put back" : "");
      context_.report.cast = result.casts;
      settings_.trace.set_bytes(result.bytes_read);
    } catch (...) {
      take_back();
      throw;
    }
  }

  /// Step 5. Collective.
  void finish() {
    std::vector<ModifierReport> reports;
    try {
      agree_torch(comm_, "load: finish", [&] {
        detail::finish(match_);
        if (settings_.loading.freeze_loaded) freeze(match_.model_tensors);
        reports = carry_out(modification_);
        LoraAdapters adapters = settings_.adapters;
        adapters.apply();
      });
    } catch (const Error& error) {
      take_back();
      if (before_) throw;
      throw Error(error.code(),
                  fmt::format("{}; all tensors are filled, and modifiers carried out in part: load "
                              "again before they are used (checkpoint.loading.keep_copy puts back "
                              "what was there)",
                              error.what()),
                  error.rank());
    }
    before_.reset();
    agree_torch(comm_, "load: finish", [&] {
      if (match_.optimizer.apply) match_.optimizer.apply();
      if (scheduler_ && !own_scheduler_) scheduler_->apply();
      if (random_) set_random_state(*random_);
      start_anew(settings_.loading, context_);
      context_.report.rng_restored = random_.has_value();
      if (warm_) report_states();
      context_.config = settings_.config;
    });
    context_.modifiers = unite_reports(comm_, reports);
    share_reports(comm_, context_.report.states);
  }

  CheckpointContext take() { return std::move(context_); }

 private:
  /// After a failure: all of it where there is a copy, else what has no memory of its own. Local.
  void take_back() {
    if (before_) {
      before_->restore();
      settings_.changed = false;
    }
    if (states_) states_->roll_back();
    if (own_scheduler_) scheduler_->roll_back();
  }

  void match() {
    const std::string wrapper = find_wrapper();
    agree_torch(comm_, "load: match", [&] {
      context_ = make_context(manifest_);
      names_.emplace(manifest_, settings_.loading.rename, wrapper);
      if (!wrapper.empty()) {
        context_.warnings.push_back(fmt::format(
            "'{}' is taken from the names in the checkpoint, which then fit the model's", wrapper));
      }
      match_ = match_trainer(manifest_, *names_, trainer_, settings_, modification_);
      if (warm_) scheduler_ = match_scheduler(manifest_, trainer_.scheduler);
      if (warm_) match_states();
      warn_of_modifiers(settings_.config, trainer_, modification_, match_.notes);
    });
  }

  void match_states() {
    states_.emplace(manifest_, *names_, settings_.states);
    const auto& targets = states_->targets();
    match_.targets.insert(match_.targets.end(), targets.begin(), targets.end());
    for (std::size_t i = 0; i < targets.size(); ++i) {
      const std::size_t position = states_->positions()[i];
      match_.used[position] = std::max(
          match_.used[position],
          static_cast<std::uint64_t>(use_of(manifest_.tensors[position], targets[i].placement)));
    }
    const auto& warnings = states_->warnings();
    match_.notes.warnings.insert(match_.notes.warnings.end(), warnings.begin(), warnings.end());
  }

  /// What became of what is no tensor of the model. Local.
  void report_states() {
    const int saved = context_.saved_world_size;
    auto& reports = context_.report.states;
    reports = states_->finish(saved, comm_.size());
    reports.insert(reports.begin(),
                   {"rng", random_ ? std::string("restored") : rng_left(saved, comm_.size())});
    if (trainer_.optimizer == nullptr || saved == 0 || saved == comm_.size()) return;
    reports.insert(reports.begin(), {"learning rate", rescale_rates(*trainer_.optimizer,
                                                                    settings_.loading.rescale_lr,
                                                                    saved, comm_.size())});
  }

  /// What modifiers of the program's own might throw away, or the user does not want to lose.
  /// Local.
  void keep_what_is() {
    const auto& modifiers = settings_.config.modifiers;
    const bool custom = std::any_of(modifiers.begin(), modifiers.end(), [](const Modifier& any) {
      return std::holds_alternative<CustomModifier>(any);
    });
    if (!custom && !settings_.loading.keep_copy) return;
    if (states_) states_->keep_tensors();
    std::vector<at::Tensor> filled;
    for (const TensorMemory& memory : match_.memories) filled.push_back(memory.tensor);
    before_.emplace(trainer_.model, filled, settings_.adapters);
  }

  /// The prefix behind which most of the model's names are found in a checkpoint of another
  /// program; the shortest of several. Rename rules say it themselves. Collective.
  std::string find_wrapper() {
    if (!settings_.loading.rename.empty()) return {};
    std::vector<std::string> prefixes;
    std::vector<std::uint64_t> counts;
    agree_torch(comm_, "load: match", [&] {
      prefixes = wrapper_prefixes(manifest_);
      if (prefixes.empty()) return;
      prefixes.insert(prefixes.begin(), "");
      std::vector<std::string> wanted;
      for (const ModelTensor& item : model_tensors(trainer_.model)) {
        wanted.push_back(item.names.front());
      }
      counts = count_matches(manifest_, prefixes, wanted);
    });
    comm_.all_reduce_sum(std::span<std::uint64_t>(counts));
    const auto most = std::max_element(counts.begin(), counts.end());
    return most == counts.end() ? std::string()
                                : prefixes[static_cast<std::size_t>(most - counts.begin())];
  }

  const Comm& comm_;
  const Manifest& manifest_;
  const TrainerState& trainer_;
  const RestoreSettings& settings_;
  bool warm_;
  CheckpointContext context_;
  Modification modification_;
  std::optional<CheckpointNames> names_;
  Match match_;
  std::optional<PreparedScheduler> scheduler_;
  bool own_scheduler_ = false;
  std::optional<std::vector<std::byte>> random_;
  std::optional<StatesLoad> states_;
  std::optional<Snapshot> before_;
};

}  // namespace

CheckpointContext restore(const Comm& comm, const Manifest& manifest, const TrainerState& trainer,
                          const RestoreSettings& settings) {
  Restoration restoration(comm, manifest, trainer, settings);
  {
    const TimeLimit limit(settings.until, settings.limit);
    restoration.check();
    stage(comm, settings.trace, "move", [&] { restoration.move(); });
  }
  settings.trace.stage("finish", [&] { restoration.finish(); });
  CheckpointContext context = restoration.take();
  context.trace = unite_traces(comm, settings.trace);
  return context;
}

}  // namespace cairn::detail
