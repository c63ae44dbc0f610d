#pragma once

#include <mpi.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "cairn/comm.hpp"
#include "mpi/funnel.hpp"

namespace cairn {

namespace detail {

// MPI counts are int, and several implementations fail above 2 GiB.
inline constexpr std::size_t kSliceBytes = std::size_t{1} << 30;

/// Errors: io, with MPI's own text.
void check_mpi(int code, const char* call);

}  // namespace detail

struct Comm::State {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;
  std::vector<int> numbers;  // of a part: its ranks as errors name them; empty: as they are
  std::chrono::milliseconds deadline{};
  bool broken = false;
  std::vector<bool> noticed;  // ranks whose notice came
  char notice = 0;
  std::vector<std::vector<std::byte>> abandoned;  // buffers that a pending request may still touch

  detail::Funnel* funnel =
      nullptr;  // executes what other threads want of MPI; null: nobody needs to

  int number(int r) const { return numbers.empty() ? r : numbers[static_cast<std::size_t>(r)]; }

  /// Runs what calls MPI on the thread that may.
  template <class F>
  auto on_mpi_thread(F&& operation) {
    using Result = std::invoke_result_t<F>;
    if (funnel == nullptr || funnel->may_call_mpi()) return operation();
    if constexpr (std::is_void_v<Result>) {
      funnel->post(operation);
    } else {
      std::optional<Result> result;
      funnel->post([&] { result.emplace(operation()); });
      return std::move(*result);
    }
  }

  void wait(MPI_Request request, std::string_view step, std::vector<std::byte>* buffer);
  /// At most kSliceBytes, the same number on all ranks.
  void broadcast_slice(std::vector<std::byte>& bytes, int root);
  void send(int peer, std::span<const std::byte> bytes, std::string_view step);
  std::vector<std::byte> receive(int peer, std::uint64_t bytes, std::string_view step);
  void all_to_all_counts(std::span<std::uint64_t> out_in);
  std::vector<std::uint64_t> all_to_all(const std::vector<std::vector<std::uint64_t>>& parts,
                                        std::span<const std::uint64_t> out,
                                        std::span<const std::uint64_t> in);
  bool receive_notices();
  void duplicate(MPI_Comm parent, std::chrono::milliseconds limit);
  [[noreturn]] void give_up(std::string_view step, std::vector<std::byte>* buffer);

  /// Reduces a copy of the values, so that a wait that is given up leaves no pointer to the
  /// caller's.
  template <class T>
  void reduce(std::span<T> values, MPI_Datatype type, MPI_Op op, std::string_view step) {
    on_mpi_thread([&] {
      std::vector<std::byte> buffer(values.size_bytes());
      if (!values.empty()) std::memcpy(buffer.data(), values.data(), values.size_bytes());
      MPI_Request request = MPI_REQUEST_NULL;
      detail::check_mpi(MPI_Iallreduce(MPI_IN_PLACE, buffer.data(), static_cast<int>(values.size()),
                                       type, op, comm, &request),
                        "MPI_Iallreduce");
      wait(request, step, &buffer);
      if (!values.empty()) std::memcpy(values.data(), buffer.data(), values.size_bytes());
    });
  }
};

}  // namespace cairn
