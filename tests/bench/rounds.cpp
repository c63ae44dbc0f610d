// A round of ours and a round of each limit take turns, so that all meet the same noise:
//  1. the first round of each warms caches and, for a save, makes the layout; it is not counted
//  2. a file of the round before is removed outside the timing, and so is the memory that it took
//  3. the time of a round is that of the slowest rank, from a barrier on
#include "rounds.hpp"

#include <functional>
#include <optional>
#include <utility>

#include "base/throw.hpp"
#include "limits.hpp"
#include "plan/part_scan.hpp"
#include "process.hpp"
#include "timing.hpp"

namespace cairn::bench {

namespace fs = std::filesystem;

SaveOptions save_options(const Options& options) {
  SaveOptions save;
  save.engine = engine_from_string(options.engine);
  save.transfer = options.transfer == "independent" ? Transfer::independent : Transfer::collective;
  save.durable = options.durable;
  save.statistics = options.statistics;
  save.delta = options.changed.has_value();
  save.mpio.deflate = static_cast<unsigned>(options.deflate);
  save.async.budget_bytes = options.budget_bytes;
  return save;
}

namespace {

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

/// Looks at what one rank saves as a save does, and at nothing else.
class Looks {
 public:
  explicit Looks(const Payload& payload) : targets_(payload.targets()) {
    for (const MutableTensorView& target : targets_) {
      TensorEntry& tensor = tensors_.emplace_back();
      tensor.dtype = target.dtype;
      tensor.shape = target.placement.global_shape;
      extents_.emplace_back().box = target.placement.box;
    }
  }

  void take(bool statistics) const {
    for (std::size_t t = 0; t < targets_.size(); ++t) {
      detail::PartScan scan(tensors_[t], extents_[t], statistics);
      scan.update({targets_[t].data, targets_[t].bytes()});
      static_cast<void>(scan.report());
    }
  }

 private:
  std::vector<MutableTensorView> targets_;
  std::vector<TensorEntry> tensors_;
  std::vector<Extent> extents_;
};

/// First saves, as often as there are rounds: each by a Saver that knows no layout yet.
class FirstSaves {
 public:
  /// `manifest`: of what is saved.
  FirstSaves(const Comm& comm, const Options& options, const StateView& state, fs::path container,
             fs::path raw, const Manifest& manifest)
      : comm_(comm),
        save_(save_options(options)),
        state_(state),
        container_(std::move(container)),
        raw_(std::move(raw)),
        manifest_(manifest) {}

  void round(FirstTimes& times) {
    Saver saver(comm_, save_);
    remove_on_root(comm_, container_);
    // The two halves of a first save: what later ones need not do, and what they do.
    const double layout = timed(comm_, [&] { saver.prepare_layout(container_, state_); });
    const double rest = timed(comm_, [&] { saver.save(container_, state_); });
    times.save.seconds.push_back(layout + rest);
    times.metadata.seconds.push_back(layout);
    remove_on_root(comm_, raw_);
    times.creation.seconds.push_back(
        timed(comm_, [&] { create_datasets(comm_, manifest_, raw_); }));
    remove_on_root(comm_, raw_);
  }

 private:
  const Comm& comm_;
  SaveOptions save_;
  const StateView& state_;
  fs::path container_;
  fs::path raw_;
  const Manifest& manifest_;
};

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
  const Looks looks(payload);
  times.shares = {{"digests alone", {}}};
  if (options.statistics) times.shares.push_back({"digests and statistics alone", {}});
  for (int round = 0; round <= options.repeat; ++round) {
    const bool counts = round != 0;
    if (options.changed) payload.change(*options.changed);
    const auto save_plainly = [&] {
      if (!without_it) return;
      remove_on_root(comm, container);
      const double seconds = timed(comm, [&] { plain.save(container, state); });
      if (counts) without.seconds.push_back(seconds);
    };
    // In turn the first and the second one, because the first finds the disk in another state.
    if (round % 2 == 1) save_plainly();
    remove_on_root(comm, container);
    double ours = 0;
    const auto save = [&] { ours = timed(comm, [&] { saver.save(container, state); }); };
    if (round == 0) times.first_peak_bytes = peak_of(comm, save);
    if (round == 1) times.peak_bytes = peak_of(comm, save);
    if (round > 1) save();
    if (counts) times.ours.push_back(ours);
    if (round % 2 == 0) save_plainly();
    limits.round(counts);
    for (std::size_t i = 0; counts && i < times.shares.size(); ++i) {
      times.shares[i].seconds.push_back(timed(comm, [&] { looks.take(i != 0); }));
    }
  }
  if (!options.changed) {  // another first save would be a delta, too
    // Behind the others, which they would slow down: they give their memory back to the system.
    const Manifest manifest = open_checkpoint(comm, container);
    FirstSaves first(comm, options, state, container, raw, manifest);
    for (int round = 0; round < options.repeat; ++round) first.round(times.first);
  }
  times.limits = std::move(limits).limits();
  if (without_it) times.limits.push_back(std::move(without));
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
