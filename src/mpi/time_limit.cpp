#include "mpi/time_limit.hpp"

#include <utility>

#include "base/throw.hpp"

namespace cairn::detail {
namespace {

// Of a thread: what is bounded is a call, with all that it calls; saves in the background are not.
thread_local const TimeLimit* innermost = nullptr;

}  // namespace

TimeLimit::TimeLimit(Clock::time_point until, std::string text)
    : until_(until), text_(std::move(text)), outer_(std::exchange(innermost, this)) {}

TimeLimit::~TimeLimit() { innermost = outer_; }

const TimeLimit* time_limit() { return innermost; }

void check_time_limit() {
  if (innermost == nullptr || TimeLimit::Clock::now() <= innermost->until()) return;
  fail(Errc::timeout, "{} is over; raise it, or look at what is slow", innermost->text());
}

}  // namespace cairn::detail
