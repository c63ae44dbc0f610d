// cairn-sample save FILE STEP VERSION CUT direct|MPIO|statistics|ASYNC
// cairn-sample load FILE|DIR VERSION CUT direct|MPIO
// A load's CUT may also be "pairs": rows, where ranks 0 and 1, 2 and 3, ... want the same ones.
// Several commands, with the word "then" between them, run until one fails.
// MPIO: mpio, mpio-independent, mpio-ompio and mpio-romio (the component), mpio-watchdog (of 3 s),
// mpio-deflate, mpio-delta (also direct-delta), direct-broadcast (loads), mpio-cycles (each
// collective write is many small ones by all ranks; with watchdog). CAIRN_SAMPLE_LOSS=NUMBER: the
// context holds that metric. CAIRN_SAMPLE_LEASE=1: saves with the lease of FILE's directory, and
// keeps one checkpoint. CAIRN_SAMPLE_DEADLINE=SECONDS: how long the ranks wait for each other, 30
// otherwise. CAIRN_SAMPLE_LIMIT=BYTES: all ranks but 0 fail to write behind that place in any file.
// ASYNC: "async" saves in the background, with polls by the program, "async-threads" with a thread
// that calls MPI, "async-finalize" leaves it to MPI_Finalize to complete the save; "async-large"
// and "async-large-threads" add a tensor that does not fit the budget for copies. Saves the sample
// state, or loads it (a directory: the newest committed checkpoint) and compares every byte. Prints
// one line on rank 0: "saved", "equal step=N", "differs ..." or "error CODE: TEXT". Exit codes: 0
// fine, 1 differs, 2 error.
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cairn/run.hpp"
#include "support/sample_state.hpp"

namespace cairn::test {
namespace {

using Words = std::vector<std::string>;

template <class Options>
Options options_for(const std::string& engine) {
  Options options;
  if (engine.starts_with("async")) return options;
  if constexpr (std::is_same_v<Options, SaveOptions>) {
    if (engine == "statistics") {  // by the engine direct
      options.statistics = true;
      return options;
    }
  }
  if constexpr (std::is_same_v<Options, SaveOptions>) options.delta = engine.ends_with("-delta");
  if constexpr (std::is_same_v<Options, LoadOptions>) {
    if (engine.ends_with("-broadcast")) options.broadcast = BroadcastReplicas::always;
  }
  options.engine = engine_from_string(engine.substr(0, engine.find('-')));
  if (engine.ends_with("-independent")) options.transfer = Transfer::independent;
  if (engine.ends_with("-ompio")) options.mpio.component = IoComponent::ompio;
  if (engine.ends_with("-romio")) options.mpio.component = IoComponent::romio;
  if (engine.ends_with("-deflate")) options.mpio.deflate = 4;
  if (engine.ends_with("-cycles")) {
    options.mpio.hints = {{"cb_nodes", "3"}, {"cb_buffer_size", "65536"}};
  }
  if (engine.ends_with("-watchdog") || engine.ends_with("-cycles"))
    options.mpio.watchdog = std::chrono::seconds(3);
  return options;
}

/// A piece of 32 MiB, twice the budget of "async-large".
Piece large_piece(const Comm& comm) {
  constexpr std::uint64_t kBytes = 32 << 20;
  const auto ranks = static_cast<std::uint64_t>(comm.size());
  return {"model/large.than.budget", DType::u8,
          Placement::split({ranks * kBytes}, 0, comm.size(), comm.rank()),
          std::vector<std::byte>(kBytes, std::byte{0x33})};
}

/// Saves in the background and spoils the state as soon as that is allowed.
void save_async(const Comm& comm, const Words& words, std::vector<Piece>& pieces) {
  SaveOptions options;
  if (words.at(5).starts_with("async-large")) {
    options.async.budget_bytes = 16 << 20;
    pieces.push_back(large_piece(comm));
  }
  auto saver = std::make_unique<Saver>(comm, options);
  try {
    saver->save_async(words.at(1), sample_state(pieces, comm.rank(), std::stoull(words.at(2))));
    for (Piece& piece : pieces) std::fill(piece.bytes.begin(), piece.bytes.end(), std::byte{0x55});
    if (words.at(5) == "async-finalize") {
      static_cast<void>(saver.release());  // it has to live until MPI_Finalize
    } else {
      saver->wait();
    }
  } catch (...) {
    *saver =
        Saver(comm, options);  // as a program may that goes on; the old one's thread may be lost
    throw;
  }
}

int save(const Comm& comm, const Words& words) {
  auto pieces = sample_pieces(cut_from_string(words.at(4)), comm.size(), comm.rank(),
                              std::stoull(words.at(3)));
  if (words.at(5).starts_with("async")) {
    save_async(comm, words, pieces);
  } else {
    SaveOptions options = options_for<SaveOptions>(words.at(5));
    std::optional<RunLease> lease;
    if (std::getenv("CAIRN_SAMPLE_LEASE") != nullptr) {
      lease.emplace(comm, std::filesystem::path(words.at(1)).parent_path());
      options.retention.keep_last = 1;
    }
    StateView state = sample_state(pieces, comm.rank(), std::stoull(words.at(2)));
    if (const char* loss = std::getenv("CAIRN_SAMPLE_LOSS")) {
      state.documents["context"] =
          std::string(R"({"epoch": 3, "metrics": {"loss": )") + loss + "}}";
    }
    Saver(comm, options).save(words.at(1), state);
  }
  if (comm.is_root()) std::puts("saved");
  return 0;
}

int load(const Comm& comm, const Words& words) {
  std::filesystem::path path = words.at(1);
  if (std::filesystem::is_directory(path)) path = newest_checkpoint(path).value_or("none");
  const Manifest manifest = open_checkpoint(comm, path);
  const bool pairs = words.at(3) == "pairs";
  const auto wanted = sample_pieces(
      pairs ? Cut::rows : cut_from_string(words.at(3)), pairs ? (comm.size() + 1) / 2 : comm.size(),
      pairs ? comm.rank() / 2 : comm.rank(), std::stoull(words.at(2)));
  std::vector<std::vector<std::byte>> memory;
  std::vector<MutableTensorView> targets;
  for (const Piece& piece : wanted) {
    auto& bytes = memory.emplace_back(piece.bytes.size(), std::byte{0xa5});
    targets.push_back({piece.name, piece.dtype, piece.placement, bytes.data()});
  }
  const auto before = memory;
  try {
    load_tensors(comm, manifest, targets, options_for<LoadOptions>(words.at(4)));
  } catch (const Error&) {
    if (memory != before) std::puts("CHANGED although the load failed");
    throw;
  }
  std::uint64_t differs[1] = {0};
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (memory[i] != wanted[i].bytes) {
      differs[0] = 1;
      std::printf("differs in %s on rank %d\n", wanted[i].name.c_str(), comm.rank());
    }
  }
  comm.all_reduce_max(std::span<std::uint64_t>(differs));
  if (differs[0] != 0) return 1;
  if (comm.is_root())
    std::printf("equal step=%llu\n", static_cast<unsigned long long>(manifest.commit.step));
  return 0;
}

void limit_files(const Comm& comm) {
  const char* bytes = std::getenv("CAIRN_SAMPLE_LIMIT");
  if (bytes == nullptr || comm.is_root()) return;
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{std::stoull(bytes), RLIM_INFINITY};
  setrlimit(RLIMIT_FSIZE, &limit);
}

int run(const Words& words) {
  const char* deadline = std::getenv("CAIRN_SAMPLE_DEADLINE");
  Comm comm(MPI_COMM_WORLD, std::chrono::seconds(deadline != nullptr ? std::stoi(deadline) : 30));
  limit_files(comm);
  int result = 0;
  try {
    for (auto from = words.begin(); from < words.end() && result == 0;) {
      const auto to = std::find(from, words.end(), "then");
      const Words command(from, to);
      result = command.at(0) == "save" ? save(comm, command) : load(comm, command);
      from = to == words.end() ? to : to + 1;
    }
  } catch (const Error& error) {
    result = 2;
    // Every rank prints, so that a test can see that all say the same.
    std::printf("error %s: %s\n", std::string(to_string(error.code())).c_str(), error.what());
    if (error.rank() == Error::kLocal || error.code() == Errc::timeout) {
      std::fflush(stdout);
      MPI_Abort(MPI_COMM_WORLD, 2);
    }
  }
  comm.close();
  return result;
}

}  // namespace
}  // namespace cairn::test

int main(int argc, char** argv) {
  const std::string last = argv[argc - 1];
  int provided = 0;
  MPI_Init_thread(&argc, &argv,
                  last.ends_with("-threads") ? MPI_THREAD_MULTIPLE : MPI_THREAD_FUNNELED,
                  &provided);
  const int result = cairn::test::run({argv + 1, argv + argc});
  MPI_Finalize();
  return result;
}
