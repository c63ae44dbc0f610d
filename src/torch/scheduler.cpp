#include "torch/scheduler.hpp"

#include <torch/optim/schedulers/lr_scheduler.h>

namespace cairn {

Scheduler::~Scheduler() = default;

namespace detail {
namespace {

constexpr const char* kTorch = "torch";
constexpr const char* kUser = "user";

/// LibTorch gives no access to the one thing that a scheduler's steps change.
struct StepCount : torch::optim::LRScheduler {
  static unsigned& of(torch::optim::LRScheduler& scheduler) {
    return scheduler.*(&StepCount::step_count_);
  }
};

}  // namespace

Json scheduler_document(const SchedulerRef& scheduler) {
  if (auto* torch = scheduler.torch_scheduler()) {
    return {{"kind", kTorch}, {"step_count", StepCount::of(*torch)}};
  }
  const Json state = scheduler.own_scheduler()->state();
  try {
    static_cast<void>(state.dump());
  } catch (const Json::exception&) {
    // Another text in its place would be another state.
    fail(Errc::usage, "the state that the scheduler gives is no text in UTF-8");
  }
  return {{"kind", kUser}, {"state", state}};
}

void PreparedScheduler::roll_back() const noexcept {
  try {
    rollback();
  } catch (...) {
    // What it threw is less than what it is rolled back for.
  }
}

PreparedScheduler prepare_scheduler(const SchedulerRef& scheduler, const Json& document) {
  const auto kind = document.at("kind").get<std::string>();
  auto* torch = scheduler.torch_scheduler();
  if (kind != (torch != nullptr ? kTorch : kUser)) {
    fail(Errc::mismatch, "the checkpoint's scheduler is of kind '{}' but the given one is {}", kind,
         torch != nullptr ? "a LibTorch scheduler" : "a scheduler of your own");
  }
  if (torch != nullptr) {
    return {[torch, count = document.at("step_count").get<unsigned>()] {
              StepCount::of(*torch) = count;
            },
            [torch, count = StepCount::of(*torch)] { StepCount::of(*torch) = count; }};
  }
  Scheduler* own = scheduler.own_scheduler();
  return {[own, state = document.at("state").get<std::string>()] { own->load(state); },
          [own, state = own->state()] { own->load(state); }};
}

}  // namespace detail
}  // namespace cairn
