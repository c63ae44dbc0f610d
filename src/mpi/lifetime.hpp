#pragma once

#include <functional>

namespace cairn::detail {

/// Whether MPI_Finalize has returned: no call of MPI is allowed any more. Local.
bool is_mpi_finalised();

/// Whether several threads may call MPI at once: MPI_THREAD_MULTIPLE was granted. Local.
bool may_threads_call_mpi();

/// Calls a function at the start of MPI_Finalize, the last moment at which ranks can communicate.
class FinalizeHook {
 public:
  /// Local. `hook` should not throw: what it throws is shown and makes MPI_Finalize fail.
  explicit FinalizeHook(std::function<void()> hook);
  /// Takes the hook back, unless MPI has been finalised.
  ~FinalizeHook();
  FinalizeHook(const FinalizeHook&) = delete;
  FinalizeHook& operator=(const FinalizeHook&) = delete;

 private:
  std::function<void()> hook_;
  int key_;
};

}  // namespace cairn::detail
