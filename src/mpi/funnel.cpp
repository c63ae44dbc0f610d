#include "mpi/funnel.hpp"

#include <utility>

#include "base/throw.hpp"

namespace cairn::detail {
namespace {

thread_local const Funnel* executing = nullptr;

}  // namespace

void Funnel::post(const std::function<void()>& operation) {
  std::unique_lock lock(mutex_);
  if (!cancelled_) operation_ = &operation;
  changed_.wait(lock, [&] { return operation_ == nullptr || cancelled_; });
  if (std::exchange(operation_, nullptr) != nullptr || cancelled_) {
    fail(Errc::usage,
         "the save was given up before it was complete: call wait() on every rank before its "
         "owner ends");
  }
  if (auto failure = std::exchange(failure_, nullptr)) std::rethrow_exception(failure);
}

bool Funnel::is_pending() const {
  const std::lock_guard lock(mutex_);
  return operation_ != nullptr;
}

void Funnel::execute() {
  const std::function<void()>* operation = nullptr;
  {
    const std::lock_guard lock(mutex_);
    operation = operation_;
  }
  std::exception_ptr failure;
  const Funnel* const outer = std::exchange(executing, this);
  try {
    (*operation)();
  } catch (...) {
    failure = std::current_exception();
  }
  executing = outer;
  const std::lock_guard lock(mutex_);
  operation_ = nullptr;
  failure_ = failure;
  changed_.notify_all();
}

void Funnel::cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  changed_.notify_all();
}

bool Funnel::may_call_mpi() const {
  return executing == this || std::this_thread::get_id() == owner_;
}

}  // namespace cairn::detail
