#include "cairn/comm.hpp"

#include <algorithm>
#include <cstring>

#include "base/bytes.hpp"
#include "base/throw.hpp"
#include "mpi/comm_state.hpp"
#include "mpi/lifetime.hpp"

namespace cairn {
namespace {

using detail::check_mpi;
using detail::fail;
using detail::kSliceBytes;

}  // namespace

Comm::Comm(MPI_Comm parent, std::chrono::milliseconds deadline)
    : state_(std::make_unique<State>()) {
  int initialised = 0;
  MPI_Initialized(&initialised);
  if (initialised == 0 || detail::is_mpi_finalised()) {
    fail(Errc::usage, "MPI is {}: make the communicator between MPI_Init and MPI_Finalize",
         initialised == 0 ? "not initialised" : "finalised");
  }
  try {
    state_->duplicate(parent, deadline);
  } catch (...) {
    static_cast<void>(state_.release());  // MPI may still write the handle
    throw;
  }
  check_mpi(MPI_Comm_set_errhandler(state_->comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(state_->comm, &state_->rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(state_->comm, &state_->size), "MPI_Comm_size");
  state_->noticed.assign(static_cast<std::size_t>(state_->size), false);
}

Comm::~Comm() {
  // Freeing a communicator is collective, so it is not done here. A broken one keeps its buffers,
  // which the MPI library may still write to.
  if (state_ && state_->broken) static_cast<void>(state_.release());
}

Comm::Comm(Comm&&) noexcept = default;

Comm& Comm::operator=(Comm&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

void Comm::close() {
  if (!state_ || state_->broken || state_->comm == MPI_COMM_NULL) return;
  all_equal(0);  // meets with a deadline first: MPI_Comm_free has none
  check_mpi(MPI_Comm_free(&state_->comm), "MPI_Comm_free");
}

int Comm::rank() const noexcept { return state_->rank; }
int Comm::size() const noexcept { return state_->size; }
std::chrono::milliseconds Comm::deadline() const noexcept { return state_->deadline; }
MPI_Comm Comm::raw() const noexcept { return state_->comm; }

Comm detail::make_funnelled(const Comm& comm, Funnel& funnel) {
  Comm funnelled(comm.raw(), comm.deadline());
  funnelled.state_->funnel = &funnel;
  return funnelled;
}

void Comm::State::broadcast_slice(std::vector<std::byte>& bytes, int root) {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(
      MPI_Ibcast(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, root, comm, &request),
      "MPI_Ibcast");
  wait(request, fmt::format("broadcast from rank {}", number(root)), &bytes);
}

void Comm::broadcast(std::vector<std::byte>& bytes, int root) const {
  state_->on_mpi_thread([&] {
    if (bytes.size() > kSliceBytes) {
      fail(Errc::internal, "{} bytes to broadcast at once", bytes.size());
    }
    if (!bytes.empty()) state_->broadcast_slice(bytes, root);
  });
}

void Comm::broadcast(std::vector<std::byte>& bytes) const {
  state_->on_mpi_thread([&] {
    std::uint64_t size[1] = {is_root() ? bytes.size() : 0};
    all_reduce_max(std::span<std::uint64_t>(size));
    bytes.resize(size[0]);
    if (bytes.size() <= kSliceBytes) {
      if (!bytes.empty()) state_->broadcast_slice(bytes, 0);
      return;
    }
    for (std::size_t at = 0; at < bytes.size(); at += kSliceBytes) {
      const std::size_t count = std::min(kSliceBytes, bytes.size() - at);
      std::vector<std::byte> buffer(count);
      if (is_root()) std::memcpy(buffer.data(), bytes.data() + at, count);
      state_->broadcast_slice(buffer, 0);
      std::memcpy(bytes.data() + at, buffer.data(), count);
    }
  });
}

void Comm::broadcast(std::string& text) const {
  const auto raw = std::as_bytes(std::span(text));
  std::vector<std::byte> bytes(raw.begin(), raw.end());
  broadcast(bytes);
  text.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::vector<std::vector<std::byte>> Comm::gather(std::span<const std::byte> bytes) const {
  return state_->on_mpi_thread([&]() -> std::vector<std::vector<std::byte>> {
    constexpr std::string_view kGather = "gather to rank 0";
    // Sizes first, then the bytes point to point: rank 0 may receive more than MPI_Gatherv can
    // count.
    std::vector<std::uint64_t> sizes(static_cast<std::size_t>(state_->size), 0);
    sizes[static_cast<std::size_t>(state_->rank)] = bytes.size();
    all_reduce_max(std::span<std::uint64_t>(sizes));
    if (!is_root()) {
      state_->send(0, bytes, kGather);
      return {};
    }
    std::vector<std::vector<std::byte>> all(sizes.size());
    all[0].assign(bytes.begin(), bytes.end());
    for (int peer = 1; peer < state_->size; ++peer) {
      const auto at = static_cast<std::size_t>(peer);
      all[at] = state_->receive(peer, sizes[at], kGather);
    }
    return all;
  });
}

std::vector<std::byte> Comm::scatter(const std::vector<std::vector<std::byte>>& parts) const {
  return state_->on_mpi_thread([&]() -> std::vector<std::byte> {
    constexpr std::string_view kScatter = "scatter from rank 0";
    const auto ranks = static_cast<std::size_t>(state_->size);
    if (is_root() && parts.size() != ranks) {
      fail(Errc::internal, "{} parts to scatter over {} ranks", parts.size(), ranks);
    }
    std::vector<std::uint64_t> sizes(ranks, 0);
    for (std::size_t r = 0; is_root() && r < ranks; ++r) sizes[r] = parts[r].size();
    all_reduce_max(std::span<std::uint64_t>(sizes));
    if (!is_root()) return state_->receive(0, sizes[static_cast<std::size_t>(rank())], kScatter);
    for (int peer = 1; peer < state_->size; ++peer) {
      state_->send(peer, parts[static_cast<std::size_t>(peer)], kScatter);
    }
    return parts[0];
  });
}

void Comm::all_reduce_max(std::span<std::uint64_t> values) const {
  state_->reduce(values, MPI_UINT64_T, MPI_MAX, "agreement between ranks");
}

void Comm::all_reduce_sum(std::span<std::uint64_t> values) const {
  state_->reduce(values, MPI_UINT64_T, MPI_SUM, "sum over ranks");
}

void Comm::all_reduce_max(std::span<double> values) const {
  state_->reduce(values, MPI_DOUBLE, MPI_MAX, "maximum over ranks");
}

void Comm::all_reduce_or(std::span<std::uint64_t> values) const {
  state_->reduce(values, MPI_UINT64_T, MPI_BOR, "agreement between ranks");
}

void Comm::all_reduce_xor(std::span<std::uint64_t> values) const {
  state_->reduce(values, MPI_UINT64_T, MPI_BXOR, "digests over ranks");
}

std::vector<std::uint64_t> Comm::exclusive_sum(std::span<const std::uint64_t> values) const {
  return state_->on_mpi_thread([&]() -> std::vector<std::uint64_t> {
    const auto raw = std::as_bytes(values);
    std::vector<std::byte> buffer(raw.begin(), raw.end());
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Iexscan(MPI_IN_PLACE, buffer.data(), static_cast<int>(values.size()),
                          MPI_UINT64_T, MPI_SUM, state_->comm, &request),
              "MPI_Iexscan");
    state_->wait(request, "prefix sum over ranks", &buffer);
    std::vector<std::uint64_t> sums(values.size(), 0);
    // MPI leaves rank 0's result undefined: nothing lies before it.
    if (!is_root() && !sums.empty()) std::memcpy(sums.data(), buffer.data(), buffer.size());
    return sums;
  });
}

bool Comm::all_equal(std::uint64_t value) const {
  std::uint64_t pair[2] = {value, ~value};  // one maximum gives the maximum and the minimum
  all_reduce_max(std::span<std::uint64_t>(pair));
  return pair[0] == ~pair[1];
}

std::optional<Failure> Comm::first_failure(std::optional<Failure> mine,
                                           std::string_view step) const {
  return state_->on_mpi_thread([&]() -> std::optional<Failure> {
    const auto size = static_cast<std::uint64_t>(state_->size);
    // The lowest failing rank as a maximum, so that one reduction kind serves all.
    std::uint64_t lowest[1] = {mine ? size - static_cast<std::uint64_t>(state_->rank) : 0};
    state_->reduce(std::span<std::uint64_t>(lowest), MPI_UINT64_T, MPI_MAX, step);
    if (lowest[0] == 0) return std::nullopt;

    const int origin = static_cast<int>(size - lowest[0]);
    std::vector<std::byte> bytes;
    if (state_->rank == origin) {
      detail::ByteWriter out;
      out.put(static_cast<std::uint8_t>(mine->code));
      out.put(static_cast<std::int32_t>(mine->agreed ? mine->rank : state_->number(mine->rank)));
      out.put_text(mine->text);
      out.put(static_cast<std::uint8_t>(mine->agreed));
      bytes = out.take();
    }
    std::uint64_t length[1] = {bytes.size()};
    all_reduce_max(std::span<std::uint64_t>(length));
    bytes.resize(length[0]);
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ibcast(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, origin,
                         state_->comm, &request),
              "MPI_Ibcast");
    state_->wait(request, step, &bytes);
    detail::ByteReader in(bytes, "the failure report of a rank");
    Failure failure;
    failure.code = static_cast<Errc>(in.get<std::uint8_t>());
    failure.rank = in.get<std::int32_t>();
    failure.text = in.get_text();
    failure.agreed = in.get<std::uint8_t>() != 0;
    return failure;
  });
}

}  // namespace cairn
