// The wait of every collective, and who is missing when it ends without an answer:
//  1. Collectives are started non-blocking; the wait tests them until the deadline.
//  2. A rank whose deadline passes sends a one-byte notice to every other rank.
//  3. A rank that is still waiting and gets a notice sends its own at once.
//  4. After a grace period the ranks that sent no notice are the missing ones.
// From then on the communicator is unusable: its requests and buffers are abandoned, never freed.
#include "cairn/comm.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "base/bytes.hpp"
#include "base/throw.hpp"

namespace cairn {
namespace {

using Clock = std::chrono::steady_clock;
using detail::fail;

constexpr int kNoticeTag = 7001;
constexpr int kDataTag = 7002;
constexpr std::string_view kExchange = "exchange between ranks";
constexpr std::chrono::seconds kGrace{2};
// MPI counts are int, and several implementations fail above 2 GiB.
constexpr std::size_t kSliceBytes = std::size_t{1} << 30;

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail(Errc::io, "{} failed: {}", call, std::string_view(text, static_cast<std::size_t>(length)));
}

/// Lets other ranks have the core: first by yielding, later by sleeping for a moment.
void relax(std::uint64_t spins) {
  if (spins < 64) return;
  if (spins < 4096) {
    sched_yield();
    return;
  }
  constexpr timespec kPause{0, 50'000};
  nanosleep(&kPause, nullptr);
}

}  // namespace

struct Comm::State {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;
  std::chrono::milliseconds deadline{};
  bool broken = false;
  std::vector<bool> noticed;  // ranks whose notice came
  char notice = 0;
  std::vector<std::vector<std::byte>> abandoned;  // buffers that a pending request may still touch

  void wait(MPI_Request request, std::string_view step, std::vector<std::byte>* buffer);
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
    std::vector<std::byte> buffer(values.size_bytes());
    if (!values.empty()) std::memcpy(buffer.data(), values.data(), values.size_bytes());
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Iallreduce(MPI_IN_PLACE, buffer.data(), static_cast<int>(values.size()), type, op,
                             comm, &request),
              "MPI_Iallreduce");
    wait(request, step, &buffer);
    if (!values.empty()) std::memcpy(values.data(), buffer.data(), values.size_bytes());
  }
};

void Comm::State::send(int peer, std::span<const std::byte> bytes, std::string_view step) {
  for (std::size_t at = 0; at < bytes.size(); at += kSliceBytes) {
    const auto slice = bytes.subspan(at, std::min(kSliceBytes, bytes.size() - at));
    std::vector<std::byte> buffer(slice.begin(), slice.end());
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Isend(buffer.data(), static_cast<int>(buffer.size()), MPI_BYTE, peer, kDataTag,
                        comm, &request),
              "MPI_Isend");
    wait(request, step, &buffer);
  }
}

std::vector<std::byte> Comm::State::receive(int peer, std::uint64_t bytes, std::string_view step) {
  std::vector<std::byte> whole;
  whole.reserve(bytes);
  while (whole.size() < bytes) {
    std::vector<std::byte> buffer(std::min<std::uint64_t>(kSliceBytes, bytes - whole.size()));
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Irecv(buffer.data(), static_cast<int>(buffer.size()), MPI_BYTE, peer, kDataTag,
                        comm, &request),
              "MPI_Irecv");
    wait(request, step, &buffer);
    whole.insert(whole.end(), buffer.begin(), buffer.end());
  }
  return whole;
}

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

/// The words from all ranks in rank order; `out` and `in` count them by rank.
std::vector<std::uint64_t> Comm::State::all_to_all(
    const std::vector<std::vector<std::uint64_t>>& parts, std::span<const std::uint64_t> out,
    std::span<const std::uint64_t> in) {
  // One buffer for all that a pending request may touch: counts and places, then both directions.
  const std::size_t ranks = parts.size();
  const std::size_t words_out = std::reduce(out.begin(), out.end());
  const std::size_t words_in = std::reduce(in.begin(), in.end());
  const std::size_t head = 4 * ranks * sizeof(int);
  std::vector<std::byte> buffer(head + (words_out + words_in) * sizeof(std::uint64_t));
  auto* const counts = reinterpret_cast<int*>(buffer.data());
  int place_out = 0;
  int place_in = 0;
  for (std::size_t r = 0; r < ranks; ++r) {
    counts[r] = static_cast<int>(out[r]);
    counts[ranks + r] = std::exchange(place_out, place_out + counts[r]);
    counts[2 * ranks + r] = static_cast<int>(in[r]);
    counts[3 * ranks + r] = std::exchange(place_in, place_in + counts[2 * ranks + r]);
  }
  std::byte* const sent = buffer.data() + head;
  std::byte* const received = sent + words_out * sizeof(std::uint64_t);
  std::byte* at = sent;
  for (const auto& part : parts) {
    if (part.empty()) continue;
    std::memcpy(at, part.data(), part.size() * sizeof(std::uint64_t));
    at += part.size() * sizeof(std::uint64_t);
  }
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ialltoallv(sent, counts, counts + ranks, MPI_UINT64_T, received, counts + 2 * ranks,
                           counts + 3 * ranks, MPI_UINT64_T, comm, &request),
            "MPI_Ialltoallv");
  wait(request, kExchange, &buffer);
  std::vector<std::uint64_t> words(words_in);
  if (words_in != 0) std::memcpy(words.data(), received, words_in * sizeof(std::uint64_t));
  return words;
}

bool Comm::State::receive_notices() {
  bool any = false;
  for (;;) {
    int flag = 0;
    MPI_Status status;
    check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, kNoticeTag, comm, &flag, &status), "MPI_Iprobe");
    if (flag == 0) return any;
    char byte = 0;
    check_mpi(MPI_Recv(&byte, 1, MPI_CHAR, status.MPI_SOURCE, kNoticeTag, comm, MPI_STATUS_IGNORE),
              "MPI_Recv");
    noticed[static_cast<std::size_t>(status.MPI_SOURCE)] = true;
    any = true;
  }
}

void Comm::State::give_up(std::string_view step, std::vector<std::byte>* buffer) {
  broken = true;
  if (buffer != nullptr) abandoned.push_back(std::move(*buffer));
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Isend(&notice, 1, MPI_CHAR, peer, kNoticeTag, comm, &request), "MPI_Isend");
    check_mpi(MPI_Request_free(&request), "MPI_Request_free");
  }
  const auto end = Clock::now() + kGrace;
  for (std::uint64_t spins = 0; Clock::now() < end; ++spins) {
    receive_notices();
    relax(spins);
  }
  std::vector<int> missing;
  for (int peer = 0; peer < size; ++peer) {
    if (peer != rank && !noticed[static_cast<std::size_t>(peer)]) missing.push_back(peer);
  }
  if (missing.empty()) {
    throw Error(Errc::timeout,
                fmt::format("{}: the other ranks gave up waiting for this one", step), rank);
  }
  throw Error(
      Errc::timeout,
      fmt::format("{}: rank{} {} did not come within {} s; look at what {} doing, then end the "
                  "job: this communicator can't be used any more",
                  step, missing.size() == 1 ? "" : "s", fmt::join(missing, ", "),
                  std::chrono::duration<double>(deadline).count(),
                  missing.size() == 1 ? "it is" : "they are"),
      missing.front());
}

void Comm::State::wait(MPI_Request request, std::string_view step, std::vector<std::byte>* buffer) {
  // After a timeout the ranks no longer agree on where they are: nothing may seem to succeed.
  if (broken || receive_notices()) give_up(step, buffer);
  const auto end = Clock::now() + deadline;
  for (std::uint64_t spins = 0;; ++spins) {
    int done = 0;
    if (const int code = MPI_Test(&request, &done, MPI_STATUS_IGNORE); code != MPI_SUCCESS) {
      broken = true;  // what the library still does with the buffer is unknown
      if (buffer != nullptr) abandoned.push_back(std::move(*buffer));
      check_mpi(code, "MPI_Test");
    }
    if (done != 0) return;
    if (spins % 64 == 63 && (receive_notices() || Clock::now() > end)) give_up(step, buffer);
    relax(spins);
  }
}

void Comm::State::duplicate(MPI_Comm parent, std::chrono::milliseconds limit) {
  deadline = limit;
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Comm_idup(parent, &comm, &request), "MPI_Comm_idup");
  const auto end = Clock::now() + deadline;
  for (std::uint64_t spins = 0;; ++spins) {
    int done = 0;
    check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done != 0) return;
    if (Clock::now() > end) {
      broken = true;
      fail(Errc::timeout,
           "make communicator: not all ranks came within {} s; construct it on every rank",
           std::chrono::duration<double>(deadline).count());
    }
    relax(spins);
  }
}

Comm::Comm(MPI_Comm parent, std::chrono::milliseconds deadline)
    : state_(std::make_unique<State>()) {
  int initialised = 0;
  int finalised = 0;
  MPI_Initialized(&initialised);
  MPI_Finalized(&finalised);
  if (initialised == 0 || finalised != 0) {
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
MPI_Comm Comm::raw() const noexcept { return state_->comm; }

void Comm::broadcast(std::vector<std::byte>& bytes) const {
  std::uint64_t size[1] = {is_root() ? bytes.size() : 0};
  all_reduce_max(std::span<std::uint64_t>(size));
  bytes.resize(size[0]);
  for (std::size_t at = 0; at < bytes.size(); at += kSliceBytes) {
    const std::size_t count = std::min(kSliceBytes, bytes.size() - at);
    std::vector<std::byte> buffer(count);
    if (is_root()) std::memcpy(buffer.data(), bytes.data() + at, count);
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(
        MPI_Ibcast(buffer.data(), static_cast<int>(count), MPI_BYTE, 0, state_->comm, &request),
        "MPI_Ibcast");
    state_->wait(request, "broadcast from rank 0", &buffer);
    std::memcpy(bytes.data() + at, buffer.data(), count);
  }
}

void Comm::broadcast(std::string& text) const {
  const auto raw = std::as_bytes(std::span(text));
  std::vector<std::byte> bytes(raw.begin(), raw.end());
  broadcast(bytes);
  text.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::vector<std::vector<std::byte>> Comm::gather(std::span<const std::byte> bytes) const {
  constexpr std::string_view kGather = "gather to rank 0";
  // Sizes first, then the bytes point to point: rank 0 may receive more than MPI_Gatherv can count.
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
}

std::vector<std::byte> Comm::scatter(const std::vector<std::vector<std::byte>>& parts) const {
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
}

std::vector<std::vector<std::uint64_t>> Comm::exchange(
    const std::vector<std::vector<std::uint64_t>>& parts) const {
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
  if (most[0] > std::numeric_limits<int>::max()) {
    fail(Errc::unsupported, "a rank would exchange {} words at once; use more ranks", most[0]);
  }
  const std::vector<std::uint64_t> words = state_->all_to_all(parts, out, in);
  std::vector<std::vector<std::uint64_t>> received(ranks);
  auto next = words.begin();
  for (std::size_t r = 0; r < ranks; ++r) {
    received[r].assign(next, next + static_cast<std::ptrdiff_t>(in[r]));
    next += static_cast<std::ptrdiff_t>(in[r]);
  }
  return received;
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

std::vector<std::uint64_t> Comm::exclusive_sum(std::span<const std::uint64_t> values) const {
  const auto raw = std::as_bytes(values);
  std::vector<std::byte> buffer(raw.begin(), raw.end());
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iexscan(MPI_IN_PLACE, buffer.data(), static_cast<int>(values.size()), MPI_UINT64_T,
                        MPI_SUM, state_->comm, &request),
            "MPI_Iexscan");
  state_->wait(request, "prefix sum over ranks", &buffer);
  std::vector<std::uint64_t> sums(values.size(), 0);
  // MPI leaves rank 0's result undefined: nothing lies before it.
  if (!is_root() && !sums.empty()) std::memcpy(sums.data(), buffer.data(), buffer.size());
  return sums;
}

bool Comm::all_equal(std::uint64_t value) const {
  std::uint64_t pair[2] = {value, ~value};  // one maximum gives the maximum and the minimum
  all_reduce_max(std::span<std::uint64_t>(pair));
  return pair[0] == ~pair[1];
}

std::optional<Failure> Comm::first_failure(std::optional<Failure> mine,
                                           std::string_view step) const {
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
    out.put(static_cast<std::int32_t>(mine->rank));
    out.put_text(mine->text);
    out.put(static_cast<std::uint8_t>(mine->agreed));
    bytes = out.take();
  }
  std::uint64_t length[1] = {bytes.size()};
  all_reduce_max(std::span<std::uint64_t>(length));
  bytes.resize(length[0]);
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibcast(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, origin, state_->comm,
                       &request),
            "MPI_Ibcast");
  state_->wait(request, step, &bytes);
  detail::ByteReader in(bytes, "the failure report of a rank");
  Failure failure;
  failure.code = static_cast<Errc>(in.get<std::uint8_t>());
  failure.rank = in.get<std::int32_t>();
  failure.text = in.get_text();
  failure.agreed = in.get<std::uint8_t>() != 0;
  return failure;
}

}  // namespace cairn
