#include "options.hpp"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <limits>

#include "cairn/error.hpp"

namespace train_lm {
namespace {

/// The flags as they were typed, before they are laid over the configuration file.
struct Flags {
  std::string parallel = "ddp";
  std::string engine = "direct";
  std::string dir = "runs/train_lm";
  std::string config;
  std::string die_at;
  std::string signal_at;
  double time_limit = 0;
  std::uint64_t save_every = 0;
  bool async = false;
};

[[noreturn]] void usage(const std::string& text) {
  throw cairn::Error(cairn::Errc::usage, text + "; see train_lm --help");
}

template <class T>
bool parse_whole(std::string_view text, T& value) {
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return !text.empty() && result.ec == std::errc{} && result.ptr == end;
}

/// "STEP:RANK"
template <class T>
T parse_place(const char* flag, const std::string& text) {
  T place;
  const std::size_t colon = text.find(':');
  if (colon == std::string::npos ||
      !parse_whole(std::string_view(text).substr(0, colon), place.step) ||
      !parse_whole(std::string_view(text).substr(colon + 1), place.rank)) {
    usage(fmt::format("{} '{}' is not STEP:RANK, two whole numbers as in 20:1", flag, text));
  }
  return place;
}

Parallel parse_parallel(const std::string& text) {
  for (const Parallel parallel : {Parallel::ddp, Parallel::tp, Parallel::zero}) {
    if (text == to_string(parallel)) return parallel;
  }
  usage(fmt::format("--parallel '{}' is none of ddp, tp, zero", text));
}

void add_flags(CLI::App& app, Flags& flags, Options& options) {
  // A script may append a flag to override one of its own.
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.add_option("--parallel", flags.parallel, "ddp, tp or zero")->capture_default_str();
  app.add_option("--dir", flags.dir, "Run directory of the checkpoints")->capture_default_str();
  app.add_option("--engine", flags.engine, "direct or mpio")->capture_default_str();
  app.add_flag("--async", flags.async, "Save in the background");
  app.add_option("--config", flags.config, "YAML file with cairn's settings; flags override it");
  app.add_option(
         "--resume", options.resume,
         "auto: newest checkpoint of --dir if any; none: start anew; or a checkpoint or run "
         "directory")
      ->capture_default_str();
  app.add_option("--die-at", flags.die_at,
                 "STEP:RANK: SIGKILL that rank in the middle of that step's save");
  app.add_option("--signal-at", flags.signal_at,
                 "STEP:RANK: that rank sends itself SIGTERM after that step");
  app.add_option("--time-limit", flags.time_limit,
                 "Seconds until the job ends; default: what Slurm says");
  app.add_option("--data", options.data, "Text to learn")->capture_default_str();
  // CLI11 wraps negative numbers around where the variable is unsigned.
  const CLI::Validator unsigned_only(
      [](const std::string& text) {
        return std::string(text.starts_with('-') ? "a negative number is not allowed" : "");
      },
      "");
  const auto add_number = [&](const char* flag, auto& value, const char* help) {
    app.add_option(flag, value, help)->capture_default_str()->check(unsigned_only);
  };
  add_number("--save-every", flags.save_every, "Steps between saves; 0: only after the last");
  add_number("--steps", options.steps, "Optimizer steps in all");
  add_number("--batch", options.batch, "Samples per step, of all ranks together");
  add_number("--layers", options.layers, "Transformer blocks");
  add_number("--width", options.width, "Width of the residual stream");
  add_number("--heads", options.heads, "Attention heads");
  add_number("--context", options.context, "Bytes per sample");
  add_number("--seed", options.seed, "Seed of everything random");
  add_number("--lr", options.lr, "Initial learning rate");
  add_number("--step-ms", options.step_ms, "Each step takes at least so many milliseconds");
  add_number("--log-every", options.log_every, "Steps between loss lines; 0: none");
}

void require_range(const char* flag, std::uint64_t value, std::uint64_t low, std::uint64_t high) {
  if (value < low || value > high) {
    usage(fmt::format("{} {} is not between {} and {}", flag, value, low, high));
  }
}

void check(const Options& options, int ranks) {
  require_range("--steps", options.steps, 1, std::numeric_limits<std::uint32_t>::max());
  require_range("--batch", options.batch, 1, 1U << 20);
  require_range("--layers", options.layers, 1, 4096);
  require_range("--width", options.width, 1, 1U << 17);
  require_range("--heads", options.heads, 1, options.width);
  require_range("--context", options.context, 1, 1U << 20);
  if (options.width % options.heads != 0) {
    usage(fmt::format("--heads {} does not divide --width {}", options.heads, options.width));
  }
  if (!(options.lr > 0.0 && options.lr <= 10.0)) {
    usage(fmt::format("--lr {} is not above 0 and at most 10", options.lr));
  }
  if (options.checkpoint.save.dir.empty()) usage("--dir is empty");
  if (options.resume.empty()) usage("--resume is empty; give auto, none or a path");
  const auto check_rank = [&](const char* flag, const auto& place) {
    if (!place || (place->rank >= 0 && place->rank < ranks)) return;
    usage(fmt::format("{} names rank {}, but the ranks are 0 to {}", flag, place->rank, ranks - 1));
  };
  check_rank("--die-at", options.die_at);
  check_rank("--signal-at", options.signal_at);
  if (!options.die_at) return;
  const std::uint64_t step = options.die_at->step;
  if (step == 0 || step > options.steps || !options.saves_at(step)) {
    usage(fmt::format(
        "--die-at names step {}, at which nothing is saved (--save-every {}, --steps {})", step,
        options.checkpoint.save.every_n_steps, options.steps));
  }
}

/// Explicit flags win over the file, the file over the defaults.
void lay_over_file(const CLI::App& app, const Flags& flags, Options& options) {
  cairn::Config& checkpoint = options.checkpoint;
  const bool has_file = app.count("--config") != 0;
  if (has_file) checkpoint = cairn::Config::from_file(flags.config);
  const auto wins = [&](const char* flag) { return !has_file || app.count(flag) != 0; };
  if (wins("--dir") || checkpoint.save.dir.empty()) checkpoint.save.dir = flags.dir;
  if (wins("--engine")) checkpoint.save.engine = cairn::engine_from_string(flags.engine);
  if (flags.async && !checkpoint.save.async) checkpoint.save.async.emplace();
  if (flags.time_limit > 0) checkpoint.save.preemption.time_limit_s = flags.time_limit;
  if (wins("--save-every")) checkpoint.save.every_n_steps = flags.save_every;
}

}  // namespace

std::string_view to_string(Parallel parallel) {
  switch (parallel) {
    case Parallel::ddp:
      return "ddp";
    case Parallel::tp:
      return "tp";
    case Parallel::zero:
      return "zero";
  }
  return "?";
}

std::optional<Options> parse_options(int argc, const char* const* argv, int ranks,
                                     std::string& help) {
  Options options;
  Flags flags;
  CLI::App app(
      "Trains a byte-level Transformer language model under MPI, with cairn's checkpoints.",
      "train_lm");
  add_flags(app, flags, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    help = app.help();
    return std::nullopt;
  } catch (const CLI::ParseError& error) {
    usage(error.what());
  }
  lay_over_file(app, flags, options);
  options.parallel = parse_parallel(flags.parallel);
  if (!flags.die_at.empty()) options.die_at = parse_place<DieAt>("--die-at", flags.die_at);
  if (!flags.signal_at.empty()) {
    options.signal_at = parse_place<SignalAt>("--signal-at", flags.signal_at);
  }
  check(options, ranks);
  return options;
}

}  // namespace train_lm
