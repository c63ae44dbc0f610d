#pragma once

#include <string>
#include <utility>

#include "cairn/comm.hpp"
#include "mpi/time_limit.hpp"
#include "pipeline/trace.hpp"

namespace cairn::detail {

/// A stage of a load that does not begin once the time limit of this thread has passed. Collective.
/// Errors: timeout, and what `work` throws.
template <class F>
auto stage(const Comm& comm, Trace& trace, const std::string& name, F&& work) {
  return trace.stage(name, [&] {
    agree(comm, "load: " + name, check_time_limit);
    return std::forward<F>(work)();
  });
}

}  // namespace cairn::detail
