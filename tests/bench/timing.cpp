#include "timing.hpp"

#include <algorithm>
#include <chrono>

#include "os/file.hpp"
#include "process.hpp"

namespace cairn::bench {
namespace {

void barrier(const Comm& comm) { comm.all_equal(0); }

}  // namespace

double seconds_of(const std::function<void()>& operation) {
  const auto start = std::chrono::steady_clock::now();
  operation();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double timed(const Comm& comm, const std::function<void()>& operation) {
  barrier(comm);
  double seconds[1] = {seconds_of(operation)};
  comm.all_reduce_max(std::span<double>(seconds));
  return seconds[0];
}

std::uint64_t peak_beyond(const Comm& comm, std::uint64_t before) {
  std::uint64_t peak[1] = {memory_peak()};
  peak[0] -= std::min(peak[0], before);
  comm.all_reduce_max(std::span<std::uint64_t>(peak));
  return peak[0];
}

std::uint64_t peak_of(const Comm& comm, const std::function<void()>& operation) {
  const std::uint64_t before = start_memory_peak();
  operation();
  return peak_beyond(comm, before);
}

void remove_on_root(const Comm& comm, const std::filesystem::path& path) {
  if (comm.is_root()) detail::remove_quietly(path);
  barrier(comm);
}

}  // namespace cairn::bench
