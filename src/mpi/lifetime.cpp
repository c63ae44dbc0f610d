#include "mpi/lifetime.hpp"

#include <fmt/format.h>
#include <mpi.h>

#include <cstdio>
#include <exception>
#include <utility>

namespace cairn::detail {
namespace {

int call_hook(MPI_Comm, int, void* hook, void*) {
  try {
    (*static_cast<std::function<void()>*>(hook))();
    return MPI_SUCCESS;
  } catch (const std::exception& error) {
    fmt::print(stderr, "cairn: in MPI_Finalize: {}\n", error.what());
    return MPI_ERR_OTHER;
  }
}

}  // namespace

bool is_mpi_finalised() {
  int finalised = 0;
  MPI_Finalized(&finalised);
  return finalised != 0;
}

bool may_threads_call_mpi() {
  int provided = MPI_THREAD_SINGLE;
  MPI_Query_thread(&provided);
  return provided == MPI_THREAD_MULTIPLE;
}

// MPI_Finalize first deletes the attributes of MPI_COMM_SELF (MPI 3.1, 8.7.1).
FinalizeHook::FinalizeHook(std::function<void()> hook)
    : hook_(std::move(hook)), key_(MPI_KEYVAL_INVALID) {
  MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, &call_hook, &key_, nullptr);
  MPI_Comm_set_attr(MPI_COMM_SELF, key_, &hook_);
}

FinalizeHook::~FinalizeHook() {
  if (is_mpi_finalised()) return;
  hook_ = [] {};  // deleting the attribute calls it
  MPI_Comm_delete_attr(MPI_COMM_SELF, key_);
  MPI_Comm_free_keyval(&key_);
}

}  // namespace cairn::detail
