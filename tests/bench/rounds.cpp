// A round of ours and a round of the limit take turns, so that both meet the same noise:
//  1. the first round of each warms caches and, for a save, makes the layout; it is not counted
//  2. a file of the round before is removed outside the timing, and so is the memory that it took
//  3. the time of a round is that of the slowest rank, from a barrier on
#include "rounds.hpp"

#include <chrono>
#include <cstring>

#include "base/throw.hpp"
#include "os/file.hpp"

namespace cairn::bench {
namespace {

namespace fs = std::filesystem;
using detail::File;

void barrier(const Comm& comm) { comm.all_equal(0); }

template <class F>
double timed(const Comm& comm, F&& operation) {
  barrier(comm);
  const auto start = std::chrono::steady_clock::now();
  operation();
  double seconds[1] = {
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()};
  comm.all_reduce_max(std::span<double>(seconds));
  return seconds[0];
}

void remove_on_root(const Comm& comm, const fs::path& path) {
  if (comm.is_root()) detail::remove_quietly(path);
  barrier(comm);
}

/// Where this rank's run of the raw file begins.
std::uint64_t raw_offset(const Comm& comm, const Payload& payload) {
  const std::uint64_t mine[1] = {payload.my_bytes()};
  return comm.exclusive_sum(mine).front();
}

/// The least that any save must do: every buffer in one pwrite, neighbours behind each other.
void write_raw(const Comm& comm, std::span<const MutableTensorView> pieces, const fs::path& path,
               std::uint64_t offset, bool durable) {
  agree(comm, "limit: create", [&] {
    if (comm.is_root()) File::create(path).close();
  });
  agree(comm, "limit: write", [&] {
    File file = File::open_write(path);
    for (const MutableTensorView& piece : pieces) {
      file.write_at(offset, {piece.data, piece.bytes()}, "bench.write");
      offset += piece.bytes();
    }
    if (durable) file.sync();
    file.close();
  });
}

void read_raw(const Comm& comm, std::span<const MutableTensorView> pieces, const fs::path& path,
              std::uint64_t offset) {
  agree(comm, "limit: read", [&] {
    const File file = File::open_read(path);
    for (const MutableTensorView& piece : pieces) {
      file.read_at(offset, {piece.data, piece.bytes()});
      offset += piece.bytes();
    }
  });
}

/// The least that a snapshot must do.
void copy_raw(std::span<const MutableTensorView> pieces, std::span<std::byte> to) {
  for (const MutableTensorView& piece : pieces) {
    std::memcpy(to.data(), piece.data, piece.bytes());
    to = to.subspan(piece.bytes());
  }
}

SaveOptions save_options(const Options& options) {
  SaveOptions save;
  save.engine = engine_from_string(options.engine);
  save.transfer = options.transfer == "independent" ? Transfer::independent : Transfer::collective;
  save.durable = options.durable;
  return save;
}

}  // namespace

Times run_saves(const Comm& comm, const Options& options, const Payload& payload,
                const fs::path& container, const fs::path& raw) {
  Times times;
  Saver saver(comm, save_options(options));
  const StateView state = payload.state();
  const std::vector<MutableTensorView> pieces = payload.targets();
  const std::uint64_t offset = raw_offset(comm, payload);
  for (int round = 0; round <= options.repeat; ++round) {
    remove_on_root(comm, container);
    const double ours = timed(comm, [&] { saver.save(container, state); });
    remove_on_root(comm, raw);
    const double limit =
        timed(comm, [&] { write_raw(comm, pieces, raw, offset, options.durable); });
    if (round == 0) {
      times.first_save_s = ours;
      continue;
    }
    times.ours.push_back(ours);
    times.limit.push_back(limit);
  }
  return times;
}

Times run_async_saves(const Comm& comm, const Options& options, const Payload& payload,
                      const fs::path& container) {
  Times times;
  Saver saver(comm, save_options(options));
  const StateView state = payload.state();
  const std::vector<MutableTensorView> pieces = payload.targets();
  saver.prepare(container, state);
  std::vector<std::byte> copy(payload.my_bytes(), std::byte{1});
  for (int round = 0; round <= options.repeat; ++round) {
    remove_on_root(comm, container);
    const double ours = timed(comm, [&] { saver.save_async(container, state); });
    const double behind = timed(comm, [&] { saver.wait(); });
    const double limit = timed(comm, [&] { copy_raw(pieces, copy); });
    if (round == 0) {
      times.first_save_s = ours;
      continue;
    }
    times.ours.push_back(ours);
    times.limit.push_back(limit);
    times.behind.push_back(behind);
  }
  saver.close();
  return times;
}

Times run_loads(const Comm& comm, const Options& options, Payload& payload,
                const fs::path& container, const fs::path& raw) {
  Times times;
  const SaveOptions save = save_options(options);
  Saver(comm, save).save(container, payload.state());
  const std::uint64_t offset = raw_offset(comm, payload);
  const std::vector<MutableTensorView> targets = payload.targets();
  write_raw(comm, targets, raw, offset, options.durable);
  const LoadOptions load{
      .engine = save.engine, .transfer = save.transfer, .verify = options.verify};
  payload.clear();
  for (int round = 0; round <= options.repeat; ++round) {
    const double ours = timed(comm, [&] {
      const Manifest manifest = open_checkpoint(comm, container);
      load_tensors(comm, manifest, targets, load);
    });
    if (round == 0) {
      agree(comm, "check the load", [&] {
        if (payload.is_intact()) return;
        detail::fail(Errc::corrupt, "'{}' gave back other values than were saved",
                     container.string());
      });
    }
    const double limit = timed(comm, [&] { read_raw(comm, targets, raw, offset); });
    if (round == 0) continue;
    times.ours.push_back(ours);
    times.limit.push_back(limit);
  }
  return times;
}

}  // namespace cairn::bench
