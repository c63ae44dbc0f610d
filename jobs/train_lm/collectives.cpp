#include "collectives.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>

#include "cairn/error.hpp"
#include "cairn/placement.hpp"

namespace train_lm {
namespace {

/// Elements per message: MPI's counts are int.
constexpr std::int64_t kMessageElements = std::int64_t{1} << 28;

std::int64_t signed_size(std::uint64_t value) { return static_cast<std::int64_t>(value); }

/// Slice `rank` of a tensor, a 1-D view.
at::Tensor slice_of(const at::Tensor& tensor, int ranks, int rank) {
  const auto range = cairn::balanced_range(static_cast<std::uint64_t>(tensor.numel()), ranks, rank);
  return tensor.detach().view(-1).narrow(0, signed_size(range.start), signed_size(range.count));
}

}  // namespace

void all_reduce_sum(MPI_Comm comm, at::Tensor& tensor) {
  if (!tensor.is_contiguous() || tensor.scalar_type() != at::kFloat) {
    throw cairn::Error(cairn::Errc::internal, "all_reduce_sum needs a dense float tensor");
  }
  float* data = tensor.data_ptr<float>();
  for (std::int64_t done = 0; done < tensor.numel(); done += kMessageElements) {
    const auto count = static_cast<int>(std::min(kMessageElements, tensor.numel() - done));
    MPI_Allreduce(MPI_IN_PLACE, data + done, count, MPI_FLOAT, MPI_SUM, comm);
  }
}

double all_reduce_sum(MPI_Comm comm, double value) {
  MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_DOUBLE, MPI_SUM, comm);
  return value;
}

void all_reduce_gradients(MPI_Comm comm, const std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : parameters) {
    if (!parameter.requires_grad()) continue;
    if (!parameter.grad().defined()) parameter.mutable_grad() = at::zeros_like(parameter);
    gradients.push_back(parameter.grad().reshape({-1}));
  }
  if (gradients.empty()) return;
  at::Tensor bucket = at::cat(gradients);
  all_reduce_sum(comm, bucket);
  std::int64_t at = 0;
  for (const at::Tensor& parameter : parameters) {
    if (!parameter.requires_grad()) continue;
    parameter.mutable_grad() = bucket.narrow(0, at, parameter.numel()).view_as(parameter);
    at += parameter.numel();
  }
}

void all_gather_slices(MPI_Comm comm, const std::vector<at::Tensor>& parameters) {
  int ranks = 0;
  int rank = 0;
  MPI_Comm_size(comm, &ranks);
  MPI_Comm_rank(comm, &rank);
  for (int owner = 0; owner < ranks; ++owner) {
    std::vector<at::Tensor> slices;
    for (const at::Tensor& parameter : parameters) {
      slices.push_back(slice_of(parameter, ranks, owner));
    }
    at::Tensor packed = at::cat(slices);
    float* data = packed.data_ptr<float>();
    for (std::int64_t done = 0; done < packed.numel(); done += kMessageElements) {
      const auto count = static_cast<int>(std::min(kMessageElements, packed.numel() - done));
      MPI_Bcast(data + done, count, MPI_FLOAT, owner, comm);
    }
    if (owner == rank) continue;
    std::int64_t at = 0;
    for (at::Tensor& slice : slices) {
      slice.copy_(packed.narrow(0, at, slice.numel()));
      at += slice.numel();
    }
  }
}

}  // namespace train_lm
