#include <algorithm>
#include <limits>
#include <numeric>

#include "base/throw.hpp"
#include "mpi/comm_state.hpp"

namespace cairn {
namespace {

using detail::check_mpi;
using detail::fail;

constexpr std::string_view kExchange = "exchange between ranks";

}  // namespace

/// Fills the second half with what the other ranks have for this one.
void Comm::State::all_to_all_counts(std::span<std::uint64_t> out_in) {
  const auto raw = std::as_bytes(out_in);
  std::vector<std::byte> buffer(raw.begin(), raw.end());
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ialltoall(buffer.data(), 1, MPI_UINT64_T, buffer.data() + buffer.size() / 2, 1,
                          MPI_UINT64_T, comm, &request),
            "MPI_Ialltoall");
  wait(request, kExchange, &buffer);
  std::memcpy(out_in.data(), buffer.data(), buffer.size());
}

/// The words from all ranks in rank order, and behind those from this rank one that says nothing;
/// `out` and `in` count them by rank, without that one. It is there because Open MPI 4.1 (libnbc)
/// does not count a collective in which a rank has nothing to send and to receive, on that rank
/// alone: it would wait for ever in the next one.
std::vector<std::uint64_t> Comm::State::all_to_all(
    const std::vector<std::vector<std::uint64_t>>& parts, std::span<const std::uint64_t> out,
    std::span<const std::uint64_t> in) {
  // One buffer for all that a pending request may touch: counts and places, then both directions.
  const std::size_t ranks = parts.size();
  const auto me = static_cast<std::size_t>(rank);
  const std::size_t words_out = std::reduce(out.begin(), out.end()) + 1;
  const std::size_t words_in = std::reduce(in.begin(), in.end()) + 1;
  const std::size_t head = 4 * ranks * sizeof(int);
  std::vector<std::byte> buffer(head + (words_out + words_in) * sizeof(std::uint64_t));
  auto* const counts = reinterpret_cast<int*>(buffer.data());
  int place_out = 0;
  int place_in = 0;
  for (std::size_t r = 0; r < ranks; ++r) {
    const int more = r == me ? 1 : 0;
    counts[r] = static_cast<int>(out[r]) + more;
    counts[ranks + r] = std::exchange(place_out, place_out + counts[r]);
    counts[2 * ranks + r] = static_cast<int>(in[r]) + more;
    counts[3 * ranks + r] = std::exchange(place_in, place_in + counts[2 * ranks + r]);
  }
  std::byte* const sent = buffer.data() + head;
  std::byte* const received = sent + words_out * sizeof(std::uint64_t);
  std::byte* at = sent;
  for (std::size_t r = 0; r < ranks; ++r) {
    const auto& part = parts[r];
    if (!part.empty()) std::memcpy(at, part.data(), part.size() * sizeof(std::uint64_t));
    at += (part.size() + (r == me ? 1 : 0)) * sizeof(std::uint64_t);
  }
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ialltoallv(sent, counts, counts + ranks, MPI_UINT64_T, received, counts + 2 * ranks,
                           counts + 3 * ranks, MPI_UINT64_T, comm, &request),
            "MPI_Ialltoallv");
  wait(request, kExchange, &buffer);
  std::vector<std::uint64_t> words(words_in);
  std::memcpy(words.data(), received, words_in * sizeof(std::uint64_t));
  return words;
}

std::vector<std::vector<std::uint64_t>> Comm::exchange(
    const std::vector<std::vector<std::uint64_t>>& parts) const {
  return state_->on_mpi_thread([&]() -> std::vector<std::vector<std::uint64_t>> {
    const auto ranks = static_cast<std::size_t>(state_->size);
    if (parts.size() != ranks) {
      fail(Errc::internal, "{} parts to exchange between {} ranks", parts.size(), ranks);
    }
    std::vector<std::uint64_t> counts(2 * ranks);  // out, then in
    std::transform(parts.begin(), parts.end(), counts.begin(),
                   [](const auto& p) { return p.size(); });
    state_->all_to_all_counts(counts);
    const auto out = std::span(counts).first(ranks);
    const auto in = std::span(counts).last(ranks);
    std::uint64_t most[1] = {
        std::max(std::reduce(out.begin(), out.end()), std::reduce(in.begin(), in.end()))};
    all_reduce_max(std::span<std::uint64_t>(most));
    if (most[0] >= std::numeric_limits<int>::max()) {
      fail(Errc::unsupported, "a rank would exchange {} words at once; use more ranks", most[0]);
    }
    const std::vector<std::uint64_t> words = state_->all_to_all(parts, out, in);
    std::vector<std::vector<std::uint64_t>> received(ranks);
    auto next = words.begin();
    for (std::size_t r = 0; r < ranks; ++r) {
      received[r].assign(next, next + static_cast<std::ptrdiff_t>(in[r]));
      next += static_cast<std::ptrdiff_t>(in[r]) + (static_cast<int>(r) == state_->rank ? 1 : 0);
    }
    return received;
  });
}

}  // namespace cairn
