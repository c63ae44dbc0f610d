// The pieces are cut into windows, and as many windows as there are ranks make a round. In a round
// each rank either reads all of its windows itself, or reads one and sends it to the others.
#include "transfer/replicated.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "os/fault.hpp"
#include "plan/region.hpp"
#include "plan/slices.hpp"
#include "transfer/reader.hpp"

namespace cairn::detail {
namespace {

constexpr std::uint64_t kWindowBytes = 8 << 20;
// A probe takes two rounds; one that takes most of the work would save nothing.
constexpr std::uint64_t kRoundsForProbe = 4;

/// A part of a piece, dense in memory: bytes of a file, or a box of a tensor.
struct Part {
  std::byte* data = nullptr;
  std::uint64_t bytes = 0;
  FileRun run{};
  const TensorEntry* tensor = nullptr;  ///< null: a run
  Box box{};
};

using Window = std::vector<Part>;

std::uint64_t bytes_of(const Window& window) {
  std::uint64_t bytes = 0;
  for (const Part& part : window) bytes += part.bytes;
  return bytes;
}

/// Fills one window after the other.
class Windows {
 public:
  void add_run(const FileRun& run, std::byte* data, std::uint64_t bytes) {
    for (std::uint64_t at = 0; at < bytes;) {
      if (room_ == 0) open();
      const std::uint64_t count = std::min(bytes - at, room_);
      windows_.back().push_back({data + at, count, {run.file, run.offset + at}});
      room_ -= count;
      at += count;
    }
  }

  /// Boxes can't be cut anywhere, so that windows of them may have a little room left.
  void add_boxes(const TensorEntry& tensor, const Placement& piece, std::byte* data) {
    constexpr std::uint64_t kPartBytes = kWindowBytes / 8;
    const std::uint64_t item = item_bytes(tensor.dtype);
    // The boxes of a piece lie one behind the other in its dense bytes.
    for (const Box& box : region_of(piece, item).boxes) {
      for (Box& slice : slices_of(box, kPartBytes / item)) {
        const std::uint64_t bytes = slice.elements() * item;
        if (room_ < bytes) open();
        windows_.back().push_back({data, bytes, {}, &tensor, std::move(slice)});
        room_ -= bytes;
        data += bytes;
      }
    }
  }

  std::vector<Window> take() { return std::move(windows_); }

 private:
  void open() {
    windows_.emplace_back();
    room_ = kWindowBytes;
  }

  std::vector<Window> windows_;
  std::uint64_t room_ = 0;
};

std::vector<Window> cut(const Manifest& manifest, std::span<const ReadItem> pieces) {
  Windows windows;
  for (const ReadItem& item : pieces) {
    if (!item.run) {
      windows.add_boxes(manifest.tensors[item.tensor], *item.piece, item.data);
      continue;
    }
    const std::uint64_t unit = item_bytes(manifest.tensors.head(item.tensor).dtype);
    windows.add_run(*item.run, item.data, item.piece->elements() * unit);
  }
  return windows.take();
}

class Rounds {
 public:
  Rounds(const Comm& comm, const Manifest& manifest, std::span<const ReadItem> pieces)
      : comm_(comm), reader_(manifest) {
    agree(comm, "load: move", [&] {
      windows_ = cut(manifest, pieces);
      // Between broadcasts a rank that finds no memory could not tell the others.
      std::uint64_t most = 0;
      for (const Window& window : windows_) most = std::max(most, bytes_of(window));
      buffer_.reserve(most);
    });
  }

  std::size_t count() const { return (windows_.size() + ranks() - 1) / ranks(); }
  bool are_worth_a_probe() const { return kRoundsForProbe * ranks() < windows_.size(); }

  /// Every rank reads every window of the rounds from `first` to before `end`. They meet once, and
  /// not in every round: none waits for another then.
  void read(std::size_t first, std::size_t end) {
    agree(comm_, "load: move", [&] {
      fault_point("load.replicated");
      for (std::size_t round = first; round < end; ++round) {
        for (const Window& window : of(round)) add(window);
      }
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
        copy(windows[root], [](std::byte* in_buffer, const Part& part) {
          std::memcpy(in_buffer, part.data, part.bytes);
        });
      comm_.broadcast(buffer_, static_cast<int>(root));
      if (root == mine) continue;
      copy(windows[root], [](const std::byte* in_buffer, const Part& part) {
        std::memcpy(part.data, in_buffer, part.bytes);
      });
      bytes_received_ += buffer_.size();
    }
  }

  ReplicatedResult result() const { return {reader_.bytes_read(), bytes_received_}; }

 private:
  std::size_t ranks() const { return static_cast<std::size_t>(comm_.size()); }

  std::span<const Window> of(std::size_t round) const {
    const std::size_t first = round * ranks();
    return std::span(windows_).subspan(first, std::min(ranks(), windows_.size() - first));
  }

  void add(const Window& window) {
    for (const Part& part : window) {
      if (part.tensor != nullptr) {
        reader_.add(*part.tensor, Placement::block(part.tensor->shape, part.box), part.data);
      } else {
        reader_.add_run(part.run.file, part.run.offset, part.data, part.bytes);
      }
    }
  }

  template <class F>
  void copy(const Window& window, F&& one) {
    std::byte* at = buffer_.data();
    for (const Part& part : window) {
      one(at, part);
      at += part.bytes;
    }
  }

  const Comm& comm_;
  Reader reader_;
  std::vector<Window> windows_;
  std::vector<std::byte> buffer_;
  std::uint64_t bytes_received_ = 0;
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
                       seconds_of([&] { rounds.read(1, 2); })};
  comm.all_reduce_max(std::span<double>(seconds));
  return seconds[0] < seconds[1];
}

}  // namespace

std::uint64_t least_to_share(std::size_t ranks, BroadcastReplicas how) {
  if (how == BroadcastReplicas::always) return 1;
  return kRoundsForProbe * ranks * kWindowBytes + 1;
}

ReplicatedResult read_replicated(const Comm& comm, const Manifest& manifest,
                                 std::span<const ReadItem> pieces, BroadcastReplicas how) {
  Rounds rounds(comm, manifest, pieces);
  std::size_t next = 0;
  bool broadcasts = how == BroadcastReplicas::always;
  if (how == BroadcastReplicas::automatic && rounds.are_worth_a_probe()) {
    broadcasts = probe(comm, rounds);
    next = 2;
  }
  if (broadcasts) {
    for (; next < rounds.count(); ++next) rounds.broadcast(next);
  } else {
    rounds.read(next, rounds.count());
  }
  return rounds.result();
}

}  // namespace cairn::detail
