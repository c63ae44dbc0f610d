#include <fmt/core.h>
#include <mpi.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>

#include "cairn/comm.hpp"
#include "cairn/error.hpp"
#include "options.hpp"
#include "text.hpp"
#include "trainer.hpp"

namespace {

constexpr int kExitError = 2;

/// Everything between MPI's start and end. Errors that all ranks agree on leave as cairn::Error
/// with a rank.
int run(const cairn::Comm& comm, int argc, char** argv) {
  std::optional<train_lm::Options> options;
  std::string help;
  cairn::agree(comm, "read the options",
               [&] { options = train_lm::parse_options(argc, argv, comm.size(), help); });
  if (!options) {
    if (comm.is_root()) fmt::print("{}", help);
    return 0;
  }
  std::optional<train_lm::Text> text;
  cairn::agree(comm, "read the text",
               [&] { text = train_lm::Text::read(options->data, options->context); });
  return train_lm::train(comm, *options, *text);
}

/// The exit code, or no return where only this rank may know of the failure: the others could be
/// waiting for it, so the whole job ends.
int run_and_report(int argc, char** argv) {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  try {
    cairn::Comm comm(MPI_COMM_WORLD);
    const int code = run(comm, argc, argv);
    comm.close();
    return code;
  } catch (const cairn::Error& error) {
    if (error.rank() != cairn::Error::kLocal && error.code() != cairn::Errc::timeout) {
      if (rank == 0) fmt::print(stderr, "train_lm: {}\n", error.what());
      return kExitError;
    }
    fmt::print(stderr, "train_lm: rank {}: {}\n", rank, error.what());
  } catch (const std::exception& error) {
    fmt::print(stderr, "train_lm: rank {}: {}\n", rank, error.what());
  }
  std::fflush(stderr);
  MPI_Abort(MPI_COMM_WORLD, kExitError);
  return kExitError;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes ('ulimit -f') is an error of the save then
  int provided = 0;  // cairn calls MPI from the thread that calls cairn; any level allows that
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  const int code = run_and_report(argc, argv);
  MPI_Finalize();
  return code;
}
