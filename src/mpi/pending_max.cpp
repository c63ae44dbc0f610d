#include "mpi/pending_max.hpp"

#include <cstring>
#include <memory>
#include <utility>

#include "mpi/comm_state.hpp"

namespace cairn::detail {

PendingMax::~PendingMax() {
  if (!is_posted()) return;
  static_cast<void>(std::make_unique<std::vector<std::byte>>(std::move(buffer_)).release());
}

void PendingMax::post(std::span<const std::uint64_t> values) {
  const auto bytes = std::as_bytes(values);
  buffer_.assign(bytes.begin(), bytes.end());
  check_mpi(MPI_Iallreduce(MPI_IN_PLACE, buffer_.data(), static_cast<int>(values.size()),
                           MPI_UINT64_T, MPI_MAX, comm_.raw(), &request_),
            "MPI_Iallreduce");
}

void PendingMax::nudge() {
  if (!is_posted()) return;
  // The handle is kept for wait(): a completed request becomes MPI_REQUEST_NULL.
  int flag = 0;
  check_mpi(MPI_Request_get_status(request_, &flag, MPI_STATUS_IGNORE), "MPI_Request_get_status");
}

std::vector<std::uint64_t> PendingMax::wait(std::string_view step) {
  // On an error the communicator keeps what MPI may still touch.
  comm_.state_->wait(std::exchange(request_, MPI_REQUEST_NULL), step, &buffer_);
  std::vector<std::uint64_t> values(buffer_.size() / sizeof(std::uint64_t));
  std::memcpy(values.data(), buffer_.data(), buffer_.size());
  return values;
}

}  // namespace cairn::detail
