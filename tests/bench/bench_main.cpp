// cairn-bench: how near a save or a load comes to raw pwrite or pread of the same bytes, in one
// run.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/throw.hpp"
#include "callback.hpp"
#include "conversions.hpp"
#include "digests.hpp"
#include "os/file.hpp"
#include "output.hpp"
#include "payload.hpp"
#include "program.hpp"
#include "rounds.hpp"
#include "simulation.hpp"

namespace cairn::bench {
namespace {

namespace fs = std::filesystem;
using tool::Json;

struct Summary {
  double median = 0;
  double min = 0;
  double max = 0;
};

Summary summary_of(std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  const std::size_t half = seconds.size() / 2;
  const double median =
      seconds.size() % 2 == 1 ? seconds[half] : (seconds[half - 1] + seconds[half]) / 2;
  return {median, seconds.front(), seconds.back()};
}

Json json_of(const std::string& name, const Summary& summary) {
  return {
      {"name", name}, {"median_s", summary.median}, {"min_s", summary.min}, {"max_s", summary.max}};
}

/// The ratio is that of the metadata to its limit, round by round.
Json json_of(const FirstTimes& first) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < first.metadata.seconds.size(); ++i) {
    ratios.push_back(first.metadata.seconds[i] / first.creation.seconds[i]);
  }
  const Summary ratio = summary_of(ratios);
  return {{"save", json_of(first.save.name, summary_of(first.save.seconds))},
          {"metadata", json_of(first.metadata.name, summary_of(first.metadata.seconds))},
          {"creation", json_of(first.creation.name, summary_of(first.creation.seconds))},
          {"ratio", ratio.median},
          {"ratio_min", ratio.min},
          {"ratio_max", ratio.max}};
}

Json result_of(const Comm& comm, const Options& options, std::uint64_t tensors, std::uint64_t bytes,
               const Times& times) {
  const Summary ours = summary_of(times.ours);
  Json limits = Json::array();
  for (const Series& series : times.limits) {
    const Summary limit = summary_of(series.seconds);
    limits.push_back(json_of(series.name, limit));
    limits.back()["ratio"] = limit.median / ours.median;
  }
  Json more = Json::array();
  for (const Series& series : times.more) {
    if (!series.seconds.empty()) more.push_back(json_of(series.name, summary_of(series.seconds)));
  }
  Json shares = Json::array();
  for (const Series& series : times.shares) {
    const Summary part = summary_of(series.seconds);
    shares.push_back(json_of(series.name, part));
    shares.back()["share"] = part.median / ours.median;
  }
  Json result = {{"op", options.op},
                 {"payload", options.payload},
                 {"quick", options.quick},
                 {"engine", options.engine},
                 {"transfer", options.engine == "mpio" ? Json(options.transfer) : Json(nullptr)},
                 {"ranks", comm.size()},
                 {"durable", options.durable},
                 {"replicated", options.replicated},
                 {"cut", options.cut},
                 {"bytes", bytes},
                 {"tensors", tensors},
                 {"repeat", options.repeat},
                 {"median_s", ours.median},
                 {"min_s", ours.min},
                 {"max_s", ours.max},
                 {"limits", limits},
                 {"more", more},
                 {"shares", shares},
                 {"peak_bytes", times.peak_bytes},
                 {"first_peak_bytes", times.first_peak_bytes}};
  if (options.op == "save") {
    if (!times.first.save.seconds.empty()) result["first_save"] = json_of(times.first);
    result["async"] = options.async;
    result["budget_bytes"] = options.budget_bytes;
    result["statistics"] = options.statistics;
    result["deflate"] = options.deflate;
    if (options.changed) result["changed"] = *options.changed;
  } else if (options.op == "load") {
    result["verify"] = options.verify;
    result["broadcast"] = options.broadcast;
    result["read_bytes"] = times.read_bytes;
  }
  return result;
}

Json cost_json(const Cost& cost) {
  return {{"seconds", cost.seconds}, {"heap_bytes", cost.heap_bytes}};
}

void write_text(const fs::path& path, const std::string& text) {
  detail::File file = detail::File::create(path);
  file.write_at(0, std::as_bytes(std::span(text)), "bench.json");
  file.close();
}

std::string text_of(const Options& options, const Json& result) {
  const double median = result["median_s"];
  const double bytes = result["bytes"];
  const bool converts = options.op == "convert";
  std::string text =
      fmt::format("{} {}{} {}{} ranks={}: {:.4f} s, {:.2f} GB/s\n", options.op,
                  converts ? fs::path(options.from).filename().string() : options.payload,
                  options.quick ? " (quick)" : "", options.engine,
                  options.async     ? " async"
                  : options.durable ? " durable"
                                    : "",
                  result["ranks"].get<int>(), median, bytes / median / 1e9);
  tool::Table table;
  const auto add = [&](const Json& row, const std::string& ratio) {
    table.add(
        {row["name"], fmt::format("{:.4f} s", row["median_s"].get<double>()),
         fmt::format("{:.4f} to {:.4f}", row["min_s"].get<double>(), row["max_s"].get<double>()),
         ratio});
  };
  for (const Json& row : result["limits"]) {
    add(row, fmt::format("ratio {:.2f}", row["ratio"].get<double>()));
  }
  for (const Json& row : result["more"]) add(row, "");
  for (const Json& row : result["shares"]) {
    add(row, fmt::format("{:.1f} % of a save", 100 * row["share"].get<double>()));
  }
  if (result.contains("first_save")) {
    const Json& first = result["first_save"];
    add(first["save"], "");
    add(first["metadata"],
        fmt::format("{:.2f} ({:.2f} to {:.2f}) times what HDF5 needs", first["ratio"].get<double>(),
                    first["ratio_min"].get<double>(), first["ratio_max"].get<double>()));
    add(first["creation"], "");
  }
  table.add({"memory, most", tool::human_bytes(result["peak_bytes"])});
  table.add({"memory, first", tool::human_bytes(result["first_peak_bytes"])});
  if (result.contains("read_bytes")) {
    table.add({"read / wanted", fmt::format("{:.3f}", result["read_bytes"].get<double>() / bytes)});
  }
  return text + table.text("  ");
}

/// Planning at a hundredth, a tenth and all of the ranks.
std::vector<Simulation> simulate(const Options& options) {
  constexpr std::uint64_t kTensors = 100'000;
  std::vector<Simulation> all;
  for (const int part : {100, 10, 1}) {
    const int ranks = part == 1 ? options.ranks : options.ranks / part / 8 * 8;
    if (part == 1 || ranks >= 16) {
      all.push_back(simulate_plan(ranks, options.tensors.value_or(kTensors)));
    }
  }
  return all;
}

std::string text_of(const std::vector<Simulation>& simulations) {
  tool::Table table;
  table.add({"ranks", "tensors", "pieces", "extents", "member", "keeper", "rank 0"});
  const auto text = [](const Cost& cost) {
    return fmt::format("{:.3f} s, {}", cost.seconds, tool::human_bytes(cost.heap_bytes));
  };
  for (const Simulation& s : simulations) {
    table.add({std::to_string(s.ranks), std::to_string(s.tensors), std::to_string(s.pieces),
               std::to_string(s.extents), text(s.member), text(s.keeper), text(s.root)});
  }
  return table.text();
}

Json json_of(const std::vector<Simulation>& simulations) {
  Json results = Json::array();
  for (const Simulation& s : simulations) {
    results.push_back({{"op", "plan"},
                       {"ranks", s.ranks},
                       {"tensors", s.tensors},
                       {"pieces", s.pieces},
                       {"distinct", s.distinct},
                       {"extents", s.extents},
                       {"member", cost_json(s.member)},
                       {"keeper", cost_json(s.keeper)},
                       {"root", cost_json(s.root)}});
  }
  return results;
}

int run_simulation(const Comm& comm, const Options& options) {
  tool::print(comm, [&] {
    const std::vector<Simulation> simulations = simulate(options);
    if (!options.json.empty()) write_text(options.json, tool::to_text(json_of(simulations)));
    return text_of(simulations);
  });
  return tool::kFine;
}

/// A folder of our own under --dir: a save moves the `last` link of the folder it saves to.
fs::path make_scratch(const Comm& comm, const Options& options) {
  std::string scratch;
  agree(comm, "prepare", [&] {
    if (!comm.is_root()) return;
    scratch = fs::path(options.dir) / fmt::format(".cairn-bench-{}", getpid());
    detail::make_directories(scratch);
  });
  comm.broadcast(scratch);
  return scratch;
}

void report(const Comm& comm, const Options& options, std::uint64_t tensors, std::uint64_t bytes,
            const Times& times) {
  tool::print(comm, [&] {
    const Json result = result_of(comm, options, tensors, bytes, times);
    if (!options.json.empty()) write_text(options.json, tool::to_text(Json::array({result})));
    return text_of(options, result);
  });
}

void measure_conversion(const Comm& comm, const Options& options, const fs::path& scratch) {
  const Manifest source = open_checkpoint(comm, options.from);
  const Times times =
      run_conversions(comm, options, source, scratch / "converted.h5", scratch / "raw");
  report(comm, options, source.tensors.size(), source.tensor_bytes(), times);
}

void measure(const Comm& comm, const Options& options, const fs::path& scratch) {
  const fs::path container = checkpoint_path(scratch, 1);
  const fs::path raw = scratch / "raw";
  std::optional<Payload> payload;
  agree(comm, "prepare", [&] {
    payload.emplace(
        options.payload, options.quick, options.tensors,
        Division{comm.rank(), comm.size(), options.cut == "columns", options.replicated});
  });
  std::uint64_t bytes[1] = {payload->my_bytes()};
  comm.all_reduce_sum(bytes);
  const Times times = options.op == "load" ? run_loads(comm, options, *payload, container, raw)
                      : options.async      ? run_async_saves(comm, options, *payload, container)
                                           : run_saves(comm, options, *payload, container, raw);
  agree(comm, "keep the container", [&] {
    if (!comm.is_root() || options.keep.empty()) return;
    // Not moved: the wanted place may lie on another file system.
    fs::copy_file(container, options.keep, fs::copy_options::overwrite_existing);
  });
  report(comm, options, payload->tensors(), bytes[0], times);
}

int run_callback(const Comm& comm, const Options& options) {
  const std::vector<StepCost> costs = measure_schedule(comm);
  tool::print(comm, [&] {
    Json results = Json::array();
    tool::Table table;
    table.add({"step", "steps", "cost of the callback", "of the processor"});
    for (const StepCost& cost : costs) {
      results.push_back({{"op", "callback"},
                         {"ranks", comm.size()},
                         {"step_ms", cost.step_ms},
                         {"steps", cost.steps},
                         {"us", cost.us},
                         {"cpu_us", cost.cpu_us}});
      table.add({fmt::format("{} ms", cost.step_ms), std::to_string(cost.steps),
                 fmt::format("{:.2f} us", cost.us), fmt::format("{:.2f} us", cost.cpu_us)});
    }
    if (!options.json.empty()) write_text(options.json, tool::to_text(results));
    return table.text();
  });
  return tool::kFine;
}

int run_digests(const Comm& comm, const Options& options) {
  tool::print(comm, [&] {
    const std::vector<LookSpeed> speeds = measure_looks();
    Json results = Json::array();
    tool::Table table;
    for (const LookSpeed& speed : speeds) {
      results.push_back({{"op", "digests"},
                         {"name", speed.name},
                         {"bytes_per_s", speed.bytes_per_s},
                         {"min_bytes_per_s", speed.min_bytes_per_s},
                         {"max_bytes_per_s", speed.max_bytes_per_s},
                         {"ratio", speed.bytes_per_s / speeds.front().bytes_per_s}});
      table.add({speed.name, fmt::format("{:.2f} GB/s", speed.bytes_per_s / 1e9),
                 fmt::format("{:.2f} to {:.2f}", speed.min_bytes_per_s / 1e9,
                             speed.max_bytes_per_s / 1e9),
                 fmt::format("{:.2f} of CRC-64", speed.bytes_per_s / speeds.front().bytes_per_s)});
    }
    if (!options.json.empty()) write_text(options.json, tool::to_text(results));
    return table.text();
  });
  return tool::kFine;
}

int run(const Comm& comm, const Options& options) {
  if (options.op == "digests") return run_digests(comm, options);
  if (options.op == "plan") return run_simulation(comm, options);
  if (options.op == "callback") return run_callback(comm, options);
  agree(comm, "read the options", [&] {
    const bool converts = options.op == "convert";
    if (!options.dir.empty() && !(converts ? options.from : options.payload).empty()) return;
    detail::fail(Errc::usage, "{} needs {} and --dir", options.op,
                 converts ? "--from" : "--payload");
  });
  const fs::path scratch = make_scratch(comm, options);
  const auto clean = [&] {
    std::error_code ignored;
    if (comm.is_root()) fs::remove_all(scratch, ignored);
  };
  try {
    if (options.op == "convert") {
      measure_conversion(comm, options, scratch);
    } else {
      measure(comm, options, scratch);
    }
  } catch (...) {
    clean();
    throw;
  }
  clean();
  return tool::kFine;
}

}  // namespace
}  // namespace cairn::bench

int main(int argc, char** argv) {
  cairn::bench::Options options;
  CLI::App app{"Measures saves and loads against raw pwrite and pread of the same bytes.",
               "cairn-bench"};
  app.add_option("OP", options.op,
                 "save, load, or convert to a container; plan: simulate the planning of a save on "
                 "many ranks; callback: what "
                 "a step costs in which no save is due; digests: how fast bytes are looked at")
      ->required()
      ->check(CLI::IsMember({"save", "load", "convert", "plan", "callback", "digests"}));
  app.add_option("--payload", options.payload,
                 "large: 100 tensors of 16 MiB, 300 of 4 KiB; many: 20,000 of 4 KiB; mixed: a "
                 "GPT-2-like model with Adam state")
      ->check(CLI::IsMember({"large", "many", "mixed"}));
  app.add_option("--tensors", options.tensors,
                 "How many tensors: of the payload many (default 20,000), or of plan (100,000)")
      ->check(CLI::Range(3, 100'000'000));
  app.add_option("--ranks", options.ranks, "plan: ranks of the simulated job, a multiple of 8")
      ->check(CLI::Range(16, 10'000'000))
      ->capture_default_str();
  app.add_option("--dir", options.dir, "Folder to write to; what is made there is removed");
  app.add_option("--engine", options.engine)
      ->check(CLI::IsMember({"direct", "mpio"}))
      ->capture_default_str();
  app.add_option("--transfer", options.transfer, "Transfer mode of the mpio engine")
      ->check(CLI::IsMember({"collective", "independent"}))
      ->capture_default_str();
  app.add_flag("--durable", options.durable, "fsync, ours and the limit's");
  app.add_flag("--async", options.async,
               "save: in the background; times the call, against a copy of the same bytes");
  app.add_option("--budget-bytes", options.budget_bytes,
                 "save --async: the most memory that copies may take on a rank; 0: what they need");
  app.add_flag("--statistics", options.statistics,
               "save: take statistics; compares also with a save that does not");
  app.add_option("--changed", options.changed,
                 "save: a delta in which this share of the tensors has changed; compares also with "
                 "a save of all")
      ->check(CLI::Range(0., 1.));
  app.add_option("--from", options.from,
                 "load: a container that --keep left, perhaps of another number of ranks, or "
                 "what it was converted to; convert: any checkpoint that is one file")
      ->check(CLI::ExistingFile);
  app.add_option(
         "--verify", options.verify,
         "Check digests in each load (the limit does not): before it, or in memory after it")
      ->check(CLI::IsMember({"never", "before", "loaded"}))
      ->capture_default_str();
  app.add_option("--broadcast", options.broadcast,
                 "load: read what several ranks want once and send it")
      ->check(CLI::IsMember({"auto", "never", "always"}))
      ->capture_default_str();
  app.add_option("--cut", options.cut,
                 "Along which dimension the ranks share tensors of 1 MiB and more: the first or "
                 "the last")
      ->check(CLI::IsMember({"rows", "columns"}))
      ->capture_default_str();
  app.add_flag("--replicated", options.replicated, "Every rank has, and wants, all of the payload");
  app.add_option("--deflate", options.deflate,
                 "save, engine mpio: compress at this level; compares also with a save that does "
                 "not")
      ->check(CLI::Range(0, 9));
  app.add_option("--repeat", options.repeat, "Counted rounds")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_flag("--quick", options.quick, "Shrink the payload to about a twentieth");
  app.add_option("--keep", options.keep, "Leave the container at this path");
  app.add_option("--json", options.json, "Write the result there, as a list of one object");
  return cairn::tool::run_program(
      app, argc, argv, cairn::tool::ErrorForm::text,
      [&](const cairn::Comm& comm) { return cairn::bench::run(comm, options); });
}
