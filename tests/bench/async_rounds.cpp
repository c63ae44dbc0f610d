// Saves in the background: rounds of the call, of a copy of the same bytes, and of steps of a
// trainer with and without a save behind them.
#include <optional>
#include <utility>

#include "limits.hpp"
#include "process.hpp"
#include "rounds.hpp"
#include "timing.hpp"

namespace cairn::bench {
namespace {

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

Times run_async_saves(const Comm& comm, const Options& options, const Payload& payload,
                      const std::filesystem::path& container) {
  Times times;
  Saver saver(comm, save_options(options));
  const StateView state = payload.state();
  const std::vector<MutableTensorView> pieces = payload.targets();
  std::vector<std::byte> copy(payload.my_bytes(), std::byte{1});
  Series limit{"memcpy", {}};
  Series behind{"durable after the call", {}};
  Series step{"step", {}};
  Series busy_step{"step beside the save", {}};
  Series staging{"staging", {}};
  Series predicted{"staging, predicted", {}};
  const std::uint64_t memory_before = start_memory_peak();
  saver.prepare(container, state);
  for (int round = 0; round <= options.repeat; ++round) {
    const bool counts = round != 0;
    remove_on_root(comm, container);
    if (counts) start_memory_peak();
    std::optional<AsyncSave> pending;
    const double ours = timed(comm, [&] { pending = saver.save_async(container, state); });
    const double rest = timed(comm, [&] {
      while (is_on_its_way(comm, *pending)) {
        const double seconds = trainer_step();
        if (counts) busy_step.seconds.push_back(seconds);
        saver.poll();
      }
      saver.wait();
    });
    if (round == 0) times.first_peak_bytes = peak_beyond(comm, memory_before);
    if (round == 1) times.peak_bytes = peak_beyond(comm, memory_before);
    for (int i = 0; counts && i < 20; ++i) step.seconds.push_back(trainer_step());
    const double copied = timed(comm, [&] { copy_raw(pieces, copy); });
    if (!counts) continue;
    double stall[2] = {pending->times().stalled_s, pending->times().predicted_s};
    comm.all_reduce_max(std::span<double>(stall));
    staging.seconds.push_back(stall[0]);
    predicted.seconds.push_back(stall[1]);
    times.ours.push_back(ours);
    limit.seconds.push_back(copied);
    behind.seconds.push_back(rest);
  }
  saver.close();
  times.limits.push_back(std::move(limit));
  for (Series* series : {&staging, &predicted, &behind, &step, &busy_step}) {
    times.more.push_back(std::move(*series));
  }
  return times;
}

}  // namespace cairn::bench
