#pragma once

#include <ATen/core/Tensor.h>
#include <mpi.h>

#include <vector>

namespace train_lm {

/// Sums a dense float tensor over the ranks of `comm`, in place. Collective.
void all_reduce_sum(MPI_Comm comm, at::Tensor& tensor);

/// Sums `value` over the ranks. Collective.
double all_reduce_sum(MPI_Comm comm, double value);

/// Sums the gradients of `parameters` over the ranks in one message; a rank without a gradient
/// gives zeros. Frozen parameters, the same on all ranks, get none. Collective.
void all_reduce_gradients(MPI_Comm comm, const std::vector<at::Tensor>& parameters);

/// Fills every rank's `parameters` from the balanced flat slices, of which rank r holds the current
/// values of slice r within its own copy. Collective.
void all_gather_slices(MPI_Comm comm, const std::vector<at::Tensor>& parameters);

}  // namespace train_lm
