// A round of ours and a round of each limit take turns, so that all meet the same noise:
//  1. the first round of each warms caches and, for a save, makes the layout; it is not counted
//  2. a file of the round before is removed outside the timing, and so is the memory that it took
//  3. the time of a round is that of the slowest rank, from a barrier on
#include "rounds.hpp"

#include <algorithm>
#include <chrono>
#include <functional>
#include <optional>
#include <utility>

#include "base/throw.hpp"
#include "limits.hpp"
#include "os/file.hpp"
#include "process.hpp"

namespace cairn::bench {
namespace {

namespace fs = std::filesystem;

void barrier(const Comm& comm) { comm.all_equal(0); }

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

/// Memory that `operation` took at its peak, on the rank that took most.
std::uint64_t peak_of(const Comm& comm, const std::function<void()>& operation) {
  const std::uint64_t before = start_memory_peak();
  operation();
  std::uint64_t peak[1] = {memory_peak()};
  peak[0] -= std::min(peak[0], before);
  comm.all_reduce_max(std::span<std::uint64_t>(peak));
  return peak[0];
}

void remove_on_root(const Comm& comm, const fs::path& path) {
  if (comm.is_root()) detail::remove_quietly(path);
  barrier(comm);
}

SaveOptions save_options(const Options& options) {
  SaveOptions save;
  save.engine = engine_from_string(options.engine);
  save.transfer = options.transfer == "independent" ? Transfer::independent : Transfer::collective;
  save.durable = options.durable;
  save.statistics = options.statistics;
  save.delta = options.changed.has_value();
  save.mpio.deflate = static_cast<unsigned>(options.deflate);
  return save;
}

/// The same save without what costs or saves something, and its name.
std::optional<std::pair<SaveOptions, std::string>> plain_options(const Options& options) {
  SaveOptions plain = save_options(options);
  plain.statistics = false;
  plain.delta = false;
  plain.mpio.deflate = 0;
  if (options.changed) return std::pair(plain, "whole save");
  if (options.statistics) return std::pair(plain, "save without statistics");
  if (options.deflate != 0) return std::pair(plain, "save without filters");
  return std::nullopt;
}

/// The raw ways to write what one rank saves.
class RawSaves {
 public:
  RawSaves(const Comm& comm, const Options& options, const Payload& payload, const fs::path& raw)
      : comm_(comm),
        raw_(raw),
        pieces_(payload.targets()),
        bytes_(payload.my_bytes()),
        offset_(raw_offset(comm, bytes_)),
        durable_(options.durable) {
    limits_.push_back({durable_ ? "pwrite + fsync" : "pwrite", {}});
    limits_.push_back({durable_ ? "O_DIRECT + fsync" : "one pwrite", {}});
    if (durable_) return;
    packed_.resize(bytes_);
    copy_raw(pieces_, packed_);
  }

  void round(bool counts) {
    time(counts, limits_[0], [&] { write_raw(comm_, pieces_, raw_, offset_, durable_); });
    time(counts, limits_[1], [&] {
      if (durable_) {
        write_past_cache(comm_, bytes_, raw_, offset_);
      } else {
        write_packed(comm_, packed_, raw_, offset_);
      }
    });
  }

  std::vector<Series> limits() && { return std::move(limits_); }

 private:
  void time(bool counts, Series& series, const std::function<void()>& operation) {
    remove_on_root(comm_, raw_);
    const double seconds = timed(comm_, operation);
    if (counts) series.seconds.push_back(seconds);
    remove_on_root(comm_, raw_);
  }

  const Comm& comm_;
  fs::path raw_;
  std::vector<MutableTensorView> pieces_;
  std::uint64_t bytes_;
  std::uint64_t offset_;
  bool durable_;
  std::vector<std::byte> packed_;
  std::vector<Series> limits_;
};

/// What a trainer does between two saves, on one core: arithmetic on data that fits the cache.
double trainer_step() {
  constexpr std::size_t kSide = 160;
  static std::vector<float> a(kSide * kSide, 1.0F), b(kSide * kSide, 0.5F), c(kSide * kSide);
  return seconds_of([] {
    for (int repeat = 0; repeat < 8; ++repeat) {
      for (std::size_t i = 0; i < kSide; ++i) {
        for (std::size_t k = 0; k < kSide; ++k) {
          const float factor = a[i * kSide + k];
          for (std::size_t j = 0; j < kSide; ++j) c[i * kSide + j] += factor * b[k * kSide + j];
        }
      }
      a.swap(c);
      for (float& value : a) value = value * 1e-3F + 1.0F;
    }
  });
}

/// On any rank. Collective.
bool is_on_its_way(const Comm& comm, const AsyncSave& save) {
  std::uint64_t open[1] = {save.durable() || save.error() ? 0U : 1U};
  comm.all_reduce_max(std::span<std::uint64_t>(open));
  return open[0] != 0;
}

}  // namespace

Times run_saves(const Comm& comm, const Options& options, Payload& payload,
                const fs::path& container, const fs::path& raw) {
  Times times;
  Saver saver(comm, save_options(options));
  const auto without_it = plain_options(options);
  Saver plain(comm, without_it ? without_it->first : SaveOptions{});
  const StateView state = payload.state();
  RawSaves limits(comm, options, payload, raw);
  Series without{without_it ? without_it->second : "", {}};
  if (options.changed) saver.save(checkpoint_path(container.parent_path(), 0), state);
  Series create{"HDF5 creates the datasets", {}};
  for (int round = 0; round <= options.repeat; ++round) {
    const bool counts = round != 0;
    remove_on_root(comm, container);
    if (options.changed) payload.change(*options.changed);
    double ours = 0;
    const auto save = [&] { ours = timed(comm, [&] { saver.save(container, state); }); };
    if (round == 0) times.first_peak_bytes = peak_of(comm, save);
    if (round == 1) times.peak_bytes = peak_of(comm, save);
    if (round > 1) save();
    if (counts) times.ours.push_back(ours);
    if (!counts) times.first_save_s = ours;
    limits.round(counts);
    if (without_it) {
      remove_on_root(comm, container);
      const double seconds = timed(comm, [&] { plain.save(container, state); });
      if (counts) without.seconds.push_back(seconds);
    }
  }
  const Manifest manifest = open_checkpoint(comm, container);
  for (int round = 0; round < 3; ++round) {
    remove_on_root(comm, raw);
    create.seconds.push_back(timed(comm, [&] { create_datasets(comm, manifest, raw); }));
  }
  remove_on_root(comm, raw);
  times.limits = std::move(limits).limits();
  if (without_it) times.limits.push_back(std::move(without));
  times.more.push_back(std::move(create));
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
  Series limit{"memcpy", {}};
  Series behind{"durable after the call", {}};
  Series step{"step", {}};
  Series busy_step{"step beside the save", {}};
  for (int round = 0; round <= options.repeat; ++round) {
    const bool counts = round != 0;
    remove_on_root(comm, container);
    double ours = 0;
    std::optional<AsyncSave> pending;
    const auto save = [&] {
      ours = timed(comm, [&] { pending = saver.save_async(container, state); });
    };
    if (round == 0) times.first_peak_bytes = peak_of(comm, save);
    if (round == 1) times.peak_bytes = peak_of(comm, save);
    if (round > 1) save();
    const double rest = timed(comm, [&] {
      while (is_on_its_way(comm, *pending)) {
        const double seconds = trainer_step();
        if (counts) busy_step.seconds.push_back(seconds);
        saver.poll();
      }
      saver.wait();
    });
    for (int i = 0; counts && i < 20; ++i) step.seconds.push_back(trainer_step());
    const double copied = timed(comm, [&] { copy_raw(pieces, copy); });
    if (!counts) {
      times.first_save_s = ours;
      continue;
    }
    times.ours.push_back(ours);
    limit.seconds.push_back(copied);
    behind.seconds.push_back(rest);
  }
  saver.close();
  times.limits.push_back(std::move(limit));
  for (Series* series : {&behind, &step, &busy_step}) times.more.push_back(std::move(*series));
  return times;
}

Times run_loads(const Comm& comm, const Options& options, Payload& payload,
                const fs::path& container, const fs::path& raw) {
  Times times;
  const SaveOptions save = save_options(options);
  const fs::path source = options.from.empty() ? container : fs::path(options.from);
  if (options.from.empty()) Saver(comm, save).save(container, payload.state());
  const std::uint64_t offset = raw_offset(comm, payload.my_bytes());
  const std::vector<MutableTensorView> targets = payload.targets();
  write_raw(comm, targets, raw, offset, options.durable);
  LoadOptions load;
  load.engine = save.engine;
  load.transfer = save.transfer;
  load.verify = options.verify == "before"   ? VerifyWhen::before
                : options.verify == "loaded" ? VerifyWhen::loaded
                                             : VerifyWhen::never;
  load.broadcast = options.broadcast == "always"  ? BroadcastReplicas::always
                   : options.broadcast == "never" ? BroadcastReplicas::never
                                                  : BroadcastReplicas::automatic;
  LoadOptions alone = load;
  alone.broadcast = BroadcastReplicas::never;
  Series limit{"pread", {}};
  Series apart{"load by each rank", {}};
  payload.clear();
  for (int round = 0; round <= options.repeat; ++round) {
    const std::uint64_t read_before = bytes_read();
    double ours = 0;
    const auto operation = [&] {
      ours = timed(comm, [&] {
        const Manifest manifest = open_checkpoint(comm, source);
        load_tensors(comm, manifest, targets, load);
      });
    };
    if (round == 0) times.first_peak_bytes = peak_of(comm, operation);
    if (round == 1) times.peak_bytes = peak_of(comm, operation);
    if (round > 1) operation();
    if (round == 1) {
      std::uint64_t read[1] = {bytes_read() - read_before};
      comm.all_reduce_sum(read);
      times.read_bytes = read[0];
    }
    if (round == 0) {
      agree(comm, "check the load", [&] {
        if (payload.is_intact()) return;
        detail::fail(Errc::corrupt, "'{}' gave back other values than were saved", source.string());
      });
    }
    const double seconds = timed(comm, [&] { read_raw(comm, targets, raw, offset); });
    if (round == 0) continue;
    if (options.replicated) {
      apart.seconds.push_back(
          timed(comm, [&] { load_tensors(comm, open_checkpoint(comm, source), targets, alone); }));
    }
    times.ours.push_back(ours);
    limit.seconds.push_back(seconds);
  }
  times.limits.push_back(std::move(limit));
  if (options.replicated) times.limits.push_back(std::move(apart));
  return times;
}

}  // namespace cairn::bench
