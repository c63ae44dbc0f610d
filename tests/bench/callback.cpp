#include "callback.hpp"

#include <time.h>

#include <chrono>
#include <span>

#include "cairn/trainer.hpp"

namespace cairn::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_of(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

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
  double wall = 0;
  double cpu = 0;
  for (std::uint64_t step = 1; step <= steps; ++step) {
    compute_until(Clock::now() + length);
    comm.all_equal(0);  // the gradients: whoever is late makes the others wait here
    const double wall_begin = seconds_of(CLOCK_MONOTONIC);
    const double cpu_begin = seconds_of(CLOCK_THREAD_CPUTIME_ID);
    schedule.after_step(step);
    cpu += seconds_of(CLOCK_THREAD_CPUTIME_ID) - cpu_begin;
    wall += seconds_of(CLOCK_MONOTONIC) - wall_begin;
  }
  schedule.saved(0);  // so that the end needs nothing
  schedule.at_end();
  double us[2] = {1e6 * wall / static_cast<double>(steps), 1e6 * cpu / static_cast<double>(steps)};
  comm.all_reduce_max(std::span<double>(us));
  return {step_ms, steps, us[0], us[1]};
}

}  // namespace

std::vector<StepCost> measure_schedule(const Comm& comm) {
  return {measure(comm, 0, 20'000), measure(comm, 1, 1'000), measure(comm, 10, 100)};
}

}  // namespace cairn::bench
