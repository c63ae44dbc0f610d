// The wait of every collective, and who is missing when it ends without an answer:
//  1. Collectives are started non-blocking; the wait tests them until the deadline.
//  2. A rank whose deadline passes sends a one-byte notice to every other rank.
//  3. A rank that is still waiting and gets a notice sends its own at once.
//  4. After a grace period the ranks that sent no notice are the missing ones.
// From then on the communicator is unusable: its requests and buffers are abandoned, never freed.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <string>

#include "base/throw.hpp"
#include "mpi/comm_state.hpp"
#include "mpi/time_limit.hpp"

namespace cairn {
namespace {

using Clock = std::chrono::steady_clock;
using detail::check_mpi;
using detail::fail;
using detail::kSliceBytes;

constexpr int kNoticeTag = 7001;
constexpr int kDataTag = 7002;
constexpr std::chrono::seconds kGrace{2};
// For a rank that reads to notice a time limit by itself, which costs nobody the communicator.
constexpr std::chrono::seconds kAfterLimit{5};

/// When a wait that begins now is given up.
Clock::time_point end_of_wait(std::chrono::milliseconds deadline) {
  const auto end = Clock::now() + deadline;
  const detail::TimeLimit* limit = detail::time_limit();
  return limit == nullptr ? end : std::min(end, limit->until() + kAfterLimit);
}

/// What time the ranks had that did not come.
std::string time_text(std::chrono::milliseconds deadline) {
  const detail::TimeLimit* limit = detail::time_limit();
  if (limit != nullptr && Clock::now() > limit->until()) {
    return fmt::format("before {} was over", limit->text());
  }
  return fmt::format("within {} s", std::chrono::duration<double>(deadline).count());
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

namespace detail {

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail(Errc::io, "{} failed: {}", call, std::string_view(text, static_cast<std::size_t>(length)));
}

}  // namespace detail

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
  const std::string within = time_text(deadline);
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
    if (peer != rank && !noticed[static_cast<std::size_t>(peer)]) missing.push_back(number(peer));
  }
  if (missing.empty()) {
    throw Error(Errc::timeout,
                fmt::format("{}: the other ranks gave up waiting for this one", step),
                number(rank));
  }
  throw Error(Errc::timeout,
              fmt::format("{}: rank{} {} did not come {}; look at what {} doing, then end the "
                          "job: this communicator can't be used any more",
                          step, missing.size() == 1 ? "" : "s", fmt::join(missing, ", "), within,
                          missing.size() == 1 ? "it is" : "they are"),
              missing.front());
}

void Comm::State::wait(MPI_Request request, std::string_view step, std::vector<std::byte>* buffer) {
  // After a timeout the ranks no longer agree on where they are: nothing may seem to succeed.
  const auto end = end_of_wait(deadline);
  if (broken || receive_notices()) give_up(step, buffer);
  for (std::uint64_t spins = 0;; ++spins) {
    int done = 0;
    if (const int code = MPI_Test(&request, &done, MPI_STATUS_IGNORE); code != MPI_SUCCESS) {
      broken = true;  // what the library still does with the buffer is unknown
      if (buffer != nullptr) abandoned.push_back(std::move(*buffer));
      check_mpi(code, "MPI_Test");
    }
    if (done != 0) return;
    if (spins % 64 == 63 && (receive_notices() || Clock::now() > end)) {
      give_up(step, buffer);
    }
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

}  // namespace cairn
