#include "trainer/votes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

namespace cairn::detail {
namespace {

constexpr std::string_view kStep = "trainer: agree at a step boundary";

/// The places of what is reduced.
enum Word : std::size_t {
  signal,
  minutes,
  time_limit,
  term_age,
  interval,
  flight,
  step,
  not_step,
  words
};

}  // namespace

Cadence Cadence::of(double seconds_of_a_step) {
  const double seconds = std::max(seconds_of_a_step, 1e-9);
  const auto steps = [&](double of, double rounded) {
    return static_cast<std::uint64_t>(std::clamp(of / seconds + rounded, 1.0, double{kMost}));
  };
  Cadence cadence;
  cadence.interval = steps(kSeconds, 0);
  cadence.flight = std::min(cadence.interval, steps(kFlight, 1));
  return cadence;
}

double Agreement::latency() const {
  return static_cast<double>(cadence_.interval + cadence_.flight) * step_seconds_;
}

void Agreement::note_time(double now) {
  if (vote_call_ != 0) {
    const double seconds = std::max(now - vote_time_ - forgiven_, 0.0);
    step_seconds_ = seconds / static_cast<double>(calls_ - vote_call_);
  }
  vote_time_ = now;
  vote_call_ = calls_;
  forgiven_ = 0;
}

std::uint64_t Agreement::cast(std::uint64_t at, double now, const Votes& mine) {
  note_time(now);
  const Cadence next = Cadence::of(vote_call_ == 1 ? Cadence::kSeconds : step_seconds_);
  std::array<std::uint64_t, words> values{};
  values[signal] = mine.signal;
  values[minutes] = comm_.is_root() ? mine.minutes : 0;
  values[time_limit] = comm_.is_root() ? mine.time_limit : 0;
  // Doubles that are not negative have the order of their bits.
  values[term_age] = std::bit_cast<std::uint64_t>(mine.term_age_s);
  values[interval] = comm_.is_root() ? next.interval : 0;
  values[flight] = comm_.is_root() ? next.flight : 0;
  values[step] = at;
  values[not_step] = ~at;
  pending_.post(values);
  // By what was agreed before: the ranks do not know the new cadence yet.
  return calls_ + cadence_.flight;
}

std::optional<Votes> Agreement::complete() {
  if (!pending_.is_posted()) return std::nullopt;
  const std::vector<std::uint64_t> values = pending_.wait(kStep);
  const std::uint64_t highest = values[step];
  const std::uint64_t lowest = ~values[not_step];
  if (highest != lowest) {
    throw Error(Errc::mismatch,
                fmt::format("{}: the ranks are at steps {} to {}; call on_step_end after every "
                            "step on every rank",
                            kStep, lowest, highest),
                0);
  }
  cadence_ = {values[interval], values[flight]};
  vote_at_ = std::max(calls_, vote_call_ + cadence_.interval);
  return Votes{values[signal], values[minutes], values[time_limit],
               std::bit_cast<double>(values[term_age])};
}

std::optional<Votes> Agreement::at_step(std::uint64_t at, double now,
                                        const std::function<Votes()>& mine) {
  ++calls_;
  if (comm_.size() == 1) {
    note_time(now);
    return mine();
  }
  std::optional<Votes> result;
  if (pending_.is_posted()) {
    if (calls_ < result_at_) {
      pending_.nudge();
      return result;
    }
    const double of_vote = vote_time_;
    result = complete();
    if (result) result->term_age_s += std::max(now - of_vote, 0.0);
  }
  if (calls_ >= vote_at_) result_at_ = cast(at, now, mine());
  return result;
}

}  // namespace cairn::detail
