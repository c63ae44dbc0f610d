#include <fmt/format.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>

#include "base/digest.hpp"
#include "base/json_numbers.hpp"
#include "base/throw.hpp"
#include "cairn/trainer.hpp"
#include "mpi/same.hpp"
#include "os/signals.hpp"
#include "trainer/best.hpp"
#include "trainer/budget.hpp"
#include "trainer/limit_watch.hpp"
#include "trainer/slurm.hpp"
#include "trainer/votes.hpp"

namespace cairn {

using namespace detail;
using Json = nlohmann::json;

std::string_view to_string(SaveCause cause) {
  switch (cause) {
    case SaveCause::none:
      return "none";
    case SaveCause::steps:
      return "steps";
    case SaveCause::epochs:
      return "epochs";
    case SaveCause::minutes:
      return "minutes";
    case SaveCause::metric:
      return "metric";
    case SaveCause::signal:
      return "signal";
    case SaveCause::time_limit:
      return "time limit";
    case SaveCause::end:
      return "end";
  }
  return "unknown";
}

namespace {

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool divides(std::uint64_t every, std::uint64_t count) { return every != 0 && count % every == 0; }

}  // namespace

struct SaveSchedule::Impl {
  const Comm& comm;
  SaveConfig save;
  Clock clock;
  std::optional<SignalWatch> signals;
  Agreement agreement;
  BestValues best;
  SaveBudget budget;                  // rank 0's counts
  bool in_job = false;                // rank 0 runs under Slurm
  std::optional<LimitWatch> limit;    // rank 0's, in a job whose end Slurm tells
  bool may_run_short = false;         // the same on all ranks
  std::uint64_t told_signal = 0;      // N of the hint that was printed
  std::optional<std::uint64_t> step;    // the last that was told
  std::optional<std::uint64_t> epochs;  // that were told to be over
  std::optional<std::uint64_t> at;      // the step of the newest checkpoint
  bool outdated = false;                // what was told of that step since is not in it
  double last_save = 0;
  bool saved_since_vote = false;
  SaveCause stop = SaveCause::none;
  int stop_signal = 0;

  Impl(const Comm& c, const SaveConfig& s, Clock k)
      : comm(c),
        save(s),
        clock(k ? std::move(k) : Clock(steady_seconds)),
        agreement(c),
        best(s.mode, s.save_top_k),
        last_save(clock()) {
    require_same(comm, "trainer: start", std::vector<Argument>{{"save block", hash()}});
    agree(comm, "trainer: start", [&] {
      if (save.preemption.signals) signals.emplace();
      find_end();
    });
    std::uint64_t short_of_time[1] = {may_run_short ? 1U : 0U};
    comm.all_reduce_max(std::span<std::uint64_t>(short_of_time));
    may_run_short = short_of_time[0] != 0;
  }

  /// Of what decides together.
  std::uint64_t hash() const {
    Digester digester;
    for (const std::uint64_t value :
         {save.every_n_steps, save.every_n_epochs, std::bit_cast<std::uint64_t>(save.every_minutes),
          static_cast<std::uint64_t>(save.mode), save.save_top_k,
          static_cast<std::uint64_t>(save.enabled), static_cast<std::uint64_t>(save.lease),
          static_cast<std::uint64_t>(!save.dir.empty()),
          static_cast<std::uint64_t>(save.async.has_value())}) {
      digester.update(value);
    }
    digester.update(std::string_view(save.monitor));
    return digester.value();
  }

  /// Rank 0's affair: the others learn what follows from it.
  void find_end() {
    if (!comm.is_root()) return;
    SlurmAccess slurm = slurm_access();
    in_job = slurm.environment("SLURM_JOB_ID").has_value();
    std::optional<double> left = save.preemption.time_limit_s;
    if (!left) {
      const SlurmAnswer answer = ask_slurm(slurm);
      left = answer.seconds_left;
      if (!answer.warning.empty()) fmt::print(stderr, "cairn: warning: {}\n", answer.warning);
    }
    const double now = clock();
    budget.set_end(left ? std::optional(now + *left) : std::nullopt, now, save.preemption.lead_s);
    if (in_job && !save.preemption.time_limit_s) limit.emplace(left);
    may_run_short = left.has_value() || save.preemption.grace_s.has_value();
  }

  /// Where Slurm says by now that the job ends at another time than was known.
  void hear_of_limit(double now) {
    const auto news = limit ? limit->news() : std::nullopt;
    if (!news) return;
    std::optional<double> end;
    if (news->end) {
      end = now + std::chrono::duration<double>(*news->end - LimitWatch::Clock::now()).count();
    }
    constexpr double kTold = 30;  // less is squeue's rounding, or the time that it took
    const double before = budget.end();
    budget.move_end(end, now);
    if (!(std::abs(budget.end() - before) > kTold)) return;  // also where there still is none
    fmt::print(stderr, "cairn: the time limit of this job was changed: {}\n",
               end ? fmt::format("it ends in {:.0f} s", *end - now) : "it has none");
  }

  Votes my_votes(double now) {
    Votes votes;
    if (signals) {
      votes.signal = static_cast<std::uint64_t>(signals->seen());
      votes.term_age_s = signals->term_age_s();
    }
    const double minutes = save.every_minutes;
    hear_of_limit(now);
    votes.minutes = minutes > 0 && now - last_save >= 60 * minutes ? 1 : 0;
    votes.time_limit = budget.is_time(now, agreement.latency()) ? 1 : 0;
    saved_since_vote = false;
    return votes;
  }

  /// Ends the loop, and chooses what there is time for. A grace runs since the signal came, which
  /// may be two steps ago. Collective.
  SaveDecision stop_for(SaveCause cause, const Votes& votes, double now) {
    stop = cause;
    if (cause == SaveCause::signal) stop_signal = static_cast<int>(votes.signal);
    const auto& grace = save.preemption.grace_s;
    if (stop_signal == SIGTERM && grace) budget.shorten(now + *grace - votes.term_age_s);
    return {cause, !whole_fits(clock())};
  }

  /// Whether there is time for a whole checkpoint. Collective.
  bool whole_fits(double now) const {
    std::uint64_t too_late[1] = {comm.is_root() && !budget.whole_fits(now) ? 1U : 0U};
    comm.all_reduce_max(std::span<std::uint64_t>(too_late));
    return too_late[0] == 0;
  }

  SaveDecision by_votes(std::uint64_t of_step, double now) {
    const bool stale = saved_since_vote && comm.size() > 1;
    const auto votes = agreement.at_step(of_step, now, [&] { return my_votes(now); });
    if (!votes) return {};
    if (votes->signal != 0) return stop_for(SaveCause::signal, *votes, now);
    if (votes->time_limit != 0) return stop_for(SaveCause::time_limit, *votes, now);
    if (votes->minutes != 0 && !stale) return {SaveCause::minutes};
    return {};
  }

  /// What is left of a decision where nothing is saved, or the step is saved already.
  SaveDecision unless_saved(SaveDecision decision) const {
    return save.enabled && (at != step || outdated) ? decision : SaveDecision{};
  }

  /// A save of the step though it is saved: that checkpoint does not know what was told since.
  /// After a stop it has to do, unless there is time for another. Collective after a stop.
  SaveDecision save_anew(SaveCause cause) {
    if (stop != SaveCause::none && (!save.enabled || !whole_fits(clock()))) return {};
    outdated = true;
    return unless_saved({.cause = cause, .again = at == step});
  }
};

SaveSchedule::SaveSchedule(const Comm& comm, const SaveConfig& save, Clock clock)
    : impl_(std::make_unique<Impl>(comm, save, std::move(clock))) {}
SaveSchedule::~SaveSchedule() = default;
SaveSchedule::SaveSchedule(SaveSchedule&&) noexcept = default;
SaveSchedule& SaveSchedule::operator=(SaveSchedule&&) noexcept = default;

SaveDecision SaveSchedule::after_step(std::uint64_t step) {
  impl_->step = step;
  impl_->outdated = false;
  SaveDecision decision;
  if (impl_->stop == SaveCause::none) decision = impl_->by_votes(step, impl_->clock());
  if (!decision.save() && divides(impl_->save.every_n_steps, step)) decision = {SaveCause::steps};
  return impl_->unless_saved(decision);
}

SaveDecision SaveSchedule::after_epoch(std::uint64_t epoch) {
  if (!impl_->step) return {};
  const bool told_before = std::exchange(impl_->epochs, epoch + 1) == epoch + 1;
  // A resume from the checkpoint of this step would never do what the end of an epoch brings.
  if (impl_->at == impl_->step && !told_before) return impl_->save_anew(SaveCause::epochs);
  if (!divides(impl_->save.every_n_epochs, epoch + 1)) return {};
  return impl_->unless_saved({SaveCause::epochs});
}

SaveDecision SaveSchedule::after_validation(const std::map<std::string, double>& metrics) {
  const std::string& monitor = impl_->save.monitor;
  if (monitor.empty()) return {};
  std::uint64_t bits[1] = {0};
  agree(impl_->comm, "trainer: validation", [&] {
    if (!impl_->comm.is_root()) return;
    const auto metric = metrics.find(monitor);
    if (metric == metrics.end()) {
      fail(Errc::usage, "save.monitor is '{}', which is not among the metrics of this validation",
           monitor);
    }
    bits[0] = std::bit_cast<std::uint64_t>(metric->second);
  });
  impl_->comm.all_reduce_max(std::span<std::uint64_t>(bits));
  if (!impl_->best.improves(std::bit_cast<double>(bits[0])) || !impl_->step) return {};
  return impl_->save_anew(SaveCause::metric);
}

SaveDecision SaveSchedule::at_end() {
  impl_->agreement.complete();
  return impl_->unless_saved({SaveCause::end});
}

void SaveSchedule::saved(double held_up_s) {
  impl_->at = impl_->step;
  impl_->outdated = false;
  impl_->last_save = impl_->clock();
  impl_->saved_since_vote = true;
  impl_->agreement.forgive(held_up_s);
}

void SaveSchedule::measured(double seconds) {
  impl_->budget.measured(seconds);
  if (!impl_->comm.is_root() || !impl_->in_job) return;
  const std::uint64_t signal = impl_->budget.signal_seconds(impl_->agreement.latency());
  if (impl_->told_signal != 0 && signal < 2 * impl_->told_signal) return;
  impl_->told_signal = signal;
  fmt::print(stderr, "cairn: a save takes {:.1f} s; for this job: --signal=B:USR1@{}\n", seconds,
             signal);
}

void SaveSchedule::assume(double seconds) { impl_->budget.assume(seconds, impl_->clock()); }

bool SaveSchedule::may_run_short() const { return impl_->may_run_short; }

void SaveSchedule::resumed(std::uint64_t step) {
  impl_->step = step;
  impl_->at = step;
}

SaveCause SaveSchedule::stop_cause() const { return impl_->stop; }
int SaveSchedule::signal() const { return impl_->stop_signal; }

std::string SaveSchedule::state() const {
  Json best = Json::array();
  for (const double value : impl_->best.values()) best.push_back(number_to_json(value));
  return Json{{"monitor", impl_->save.monitor}, {"best", best}}.dump();
}

void SaveSchedule::load(const std::string& state) {
  try {
    const Json json = Json::parse(state);
    std::vector<double> best;
    for (const Json& value : json.at("best")) best.push_back(number_from_json(value));
    if (json.at("monitor") == impl_->save.monitor) impl_->best.set(std::move(best));
  } catch (const Json::exception& error) {
    fail(Errc::corrupt, "the trainer's state in the checkpoint can't be understood ({})",
         error.what());
  }
}

}  // namespace cairn
