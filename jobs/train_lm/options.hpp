#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "cairn/config.hpp"

namespace train_lm {

/// How the work is divided over the ranks.
enum class Parallel : std::uint8_t {
  ddp,  ///< everything replicated; the batch is divided
  tp,  ///< attention heads and hidden units of the MLP are divided; every rank sees the whole batch
  zero,  ///< the batch and the optimizer's state are divided, the latter flat
};
std::string_view to_string(Parallel parallel);

/// Rank `rank` is to kill itself in the middle of the save of `step`.
struct DieAt {
  std::uint64_t step = 0;
  int rank = 0;
};

/// Rank `rank` is to send itself SIGTERM after `step`.
struct SignalAt {
  std::uint64_t step = 0;
  int rank = 0;
};

struct Options {
  Parallel parallel = Parallel::ddp;
  cairn::Config checkpoint;
  std::filesystem::path data = "/usr/share/common-licenses/GPL-3";
  std::uint64_t steps = 100;
  std::uint64_t batch = 8;  ///< samples of all ranks together
  std::uint64_t layers = 2;
  std::uint64_t width = 64;
  std::uint64_t heads = 4;
  std::uint64_t context = 64;  ///< bytes of one sample
  std::uint64_t seed = 1;
  std::uint64_t log_every = 10;
  double lr = 2e-3;
  std::string resume = "auto";  ///< "auto", "none" or a path
  std::optional<DieAt> die_at;
  std::optional<SignalAt> signal_at;
  std::uint64_t step_ms = 0;  ///< the least time that a step takes

  /// Whether the state after `step` is saved.
  bool saves_at(std::uint64_t step) const {
    const std::uint64_t every = checkpoint.save.every_n_steps;
    return step == steps || (every != 0 && step % every == 0);
  }
};

/// Reads the command line, and the file of --config below it. Nothing when help was asked for; it
/// is then in `help`. Local. Errors: usage, not_found.
std::optional<Options> parse_options(int argc, const char* const* argv, int ranks,
                                     std::string& help);

}  // namespace train_lm
