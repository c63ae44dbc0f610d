#include "callback.hpp"

#include <chrono>
#include <span>

#include "cairn/trainer.hpp"

namespace cairn::bench {
namespace {

using Clock = std::chrono::steady_clock;

/// Computes, as a trainer does: a rank that sleeps would leave its core to the others.
void compute_until(Clock::time_point end) {
  while (Clock::now() < end) {
  }
}

StepCost measure(const Comm& comm, double step_ms, std::uint64_t steps) {
  SaveConfig save;  // everything that needs an agreement, and never comes
  save.every_minutes = 1e6;
  save.preemption.time_limit_s = 1e7;
  SaveSchedule schedule(comm, save);
  const auto length = std::chrono::duration_cast<Clock::duration>(
      std::chrono::duration<double, std::milli>(step_ms));
  Clock::duration inside{};
  for (std::uint64_t step = 1; step <= steps; ++step) {
    compute_until(Clock::now() + length);
    const auto begin = Clock::now();
    schedule.after_step(step);
    inside += Clock::now() - begin;
  }
  schedule.saved(0);  // so that the end needs nothing
  schedule.at_end();
  double us[1] = {std::chrono::duration<double, std::micro>(inside).count() /
                  static_cast<double>(steps)};
  comm.all_reduce_max(std::span<double>(us));
  return {step_ms, steps, us[0]};
}

}  // namespace

std::vector<StepCost> measure_schedule(const Comm& comm) {
  return {measure(comm, 0, 20'000), measure(comm, 1, 1'000), measure(comm, 10, 100)};
}

}  // namespace cairn::bench
