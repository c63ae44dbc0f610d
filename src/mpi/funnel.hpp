#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "cairn/comm.hpp"

namespace cairn::detail {

/// Lets a background thread take part in collectives where only the program's own thread may call
/// MPI: the background thread posts an operation and waits, the program's thread executes it.
class Funnel {
 public:
  /// Background thread: has `operation` executed and waits for it; what it throws is thrown here.
  /// Errors: usage after cancel().
  void post(const std::function<void()>& operation);
  /// Program's thread: whether an operation waits.
  bool is_pending() const;
  /// Program's thread: executes the operation that waits. Collective, as that operation is.
  void execute();
  /// No operation will be executed any more; one that waits fails.
  void cancel();
  /// Whether the calling thread need not post: it made this object, or is inside execute().
  bool may_call_mpi() const;

 private:
  const std::thread::id owner_ = std::this_thread::get_id();
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  const std::function<void()>* operation_ = nullptr;
  std::exception_ptr failure_;
  bool cancelled_ = false;
};

/// A Comm over the ranks of `comm` whose collectives go through `funnel` when a thread calls them
/// that may not call MPI. Collective. Lifetime: `funnel` must outlive it.
Comm make_funnelled(const Comm& comm, Funnel& funnel);

}  // namespace cairn::detail
