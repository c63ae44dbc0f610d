// The runs are cut into windows, and as many windows as there are ranks make a round. In a round
// each rank either reads all of its windows itself, or reads one and sends it to the others.
#include "transfer/replicated.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "os/fault.hpp"
#include "transfer/reader.hpp"

namespace cairn::detail {
namespace {

constexpr std::uint64_t kWindowBytes = 8 << 20;

using Window = std::vector<ReplicatedRun>;

std::uint64_t bytes_of(const Window& window) {
  std::uint64_t bytes = 0;
  for (const ReplicatedRun& run : window) bytes += run.bytes;
  return bytes;
}

std::vector<Window> cut(std::span<const ReplicatedRun> runs) {
  std::vector<Window> windows;
  std::uint64_t room = 0;
  for (ReplicatedRun run : runs) {
    while (run.bytes > 0) {
      if (room == 0) {
        windows.emplace_back();
        room = kWindowBytes;
      }
      const std::uint64_t count = std::min(run.bytes, room);
      windows.back().push_back({run.file, run.offset, run.data, count});
      run.offset += count;
      run.data += count;
      run.bytes -= count;
      room -= count;
    }
  }
  return windows;
}

class Rounds {
 public:
  Rounds(const Comm& comm, const Manifest& manifest, std::span<const ReplicatedRun> runs)
      : comm_(comm), reader_(manifest) {
    agree(comm, "load: move", [&] {
      windows_ = cut(runs);
      // Between broadcasts a rank that finds no memory could not tell the others.
      if (!windows_.empty()) buffer_.reserve(bytes_of(windows_.front()));
    });
  }

  std::size_t count() const { return (windows_.size() + ranks() - 1) / ranks(); }
  /// Whether all windows of a round are full, so that its time says something.
  bool is_full(std::size_t round) const { return (round + 1) * ranks() < windows_.size(); }

  /// Every rank reads every window.
  void read(std::size_t round) {
    agree(comm_, "load: move", [&] {
      fault_point("load.replicated");
      for (const Window& window : of(round)) add(window);
      reader_.flush();
      fault_point("load.replicated.end");
    });
  }

  /// Every rank reads one window, and all get it from there.
  void broadcast(std::size_t round) {
    const auto windows = of(round);
    const auto mine = static_cast<std::size_t>(comm_.rank());
    agree(comm_, "load: move", [&] {
      fault_point("load.replicated");
      if (mine < windows.size()) add(windows[mine]);
      reader_.flush();
      fault_point("load.replicated.end");
    });
    for (std::size_t root = 0; root < windows.size(); ++root) {
      buffer_.resize(bytes_of(windows[root]));
      if (root == mine)
        copy(windows[root], [](std::byte* in_buffer, const ReplicatedRun& run) {
          std::memcpy(in_buffer, run.data, run.bytes);
        });
      comm_.broadcast(buffer_, static_cast<int>(root));
      if (root == mine) continue;
      copy(windows[root], [](const std::byte* in_buffer, const ReplicatedRun& run) {
        std::memcpy(run.data, in_buffer, run.bytes);
      });
      result_.bytes_received += buffer_.size();
    }
  }

  const ReplicatedResult& result() const { return result_; }

 private:
  std::size_t ranks() const { return static_cast<std::size_t>(comm_.size()); }

  std::span<const Window> of(std::size_t round) const {
    const std::size_t first = round * ranks();
    return std::span(windows_).subspan(first, std::min(ranks(), windows_.size() - first));
  }

  void add(const Window& window) {
    for (const ReplicatedRun& run : window) {
      reader_.add_run(run.file, run.offset, run.data, run.bytes);
      result_.bytes_read += run.bytes;
    }
  }

  template <class F>
  void copy(const Window& window, F&& one) {
    std::byte* at = buffer_.data();
    for (const ReplicatedRun& run : window) {
      one(at, run);
      at += run.bytes;
    }
  }

  const Comm& comm_;
  Reader reader_;
  std::vector<Window> windows_;
  std::vector<std::byte> buffer_;
  ReplicatedResult result_;
};

template <class F>
double seconds_of(F&& operation) {
  const auto start = std::chrono::steady_clock::now();
  operation();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Takes the rounds 0 and 1, one in each way, and returns whether to broadcast the others.
bool probe(const Comm& comm, Rounds& rounds) {
  double seconds[2] = {seconds_of([&] { rounds.broadcast(0); }),
                       seconds_of([&] { rounds.read(1); })};
  comm.all_reduce_max(std::span<double>(seconds));
  return seconds[0] < seconds[1];
}

}  // namespace

ReplicatedResult read_replicated(const Comm& comm, const Manifest& manifest,
                                 std::span<const ReplicatedRun> runs, BroadcastReplicas how) {
  Rounds rounds(comm, manifest, runs);
  std::size_t next = 0;
  bool broadcasts = how == BroadcastReplicas::always;
  // A probe that takes most of the work would save nothing.
  if (how == BroadcastReplicas::automatic && rounds.is_full(3)) {
    broadcasts = probe(comm, rounds);
    next = 2;
  }
  for (; next < rounds.count(); ++next) {
    if (broadcasts) {
      rounds.broadcast(next);
    } else {
      rounds.read(next);
    }
  }
  return rounds.result();
}

}  // namespace cairn::detail
