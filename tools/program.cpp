#include "program.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "output.hpp"

namespace cairn::tool {
namespace {

// The ranks share work of unequal length: a tensor is hashed by one rank, however large it is.
constexpr std::chrono::hours kDeadline{1};

struct Outcome {
  std::string out;
  std::string error;
  int exit_code = kFine;
};

/// Whether a launcher started several of us, so that only MPI can tell which one is to speak.
bool under_launcher() {
  constexpr std::array kVariables{"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"};
  return std::any_of(kVariables.begin(), kVariables.end(),
                     [](const char* name) { return std::getenv(name) != nullptr; });
}

/// A process that nobody launched talks to no other: with these settings of Open MPI's, unless the
/// user has made them otherwise, it does not look for networks.
void stay_alone() {
  setenv("OMPI_MCA_pml", "ob1", /*overwrite=*/0);
  setenv("OMPI_MCA_btl", "self", /*overwrite=*/0);
}

std::string format_error(const CLI::App& app, ErrorForm form, const Failure& failure) {
  if (form == ErrorForm::text)
    return visible(fmt::format("{}: error: {}\n", app.get_name(), failure.text));
  return to_text({{"error",
                   {{"code", to_string(failure.code)},
                    {"message", failure.text},
                    {"rank", std::max(failure.rank, 0)}}}});
}

void say(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

/// Gives the exit code: help that nobody could read is no success.
int tell(const Outcome& outcome) {
  if (!write_out(outcome.out)) {
    say(outcome.exit_code == kFine ? std::string(kCannotPrint) + "\n" : outcome.out);
    return kFailed;
  }
  say(outcome.error);
  return outcome.exit_code;
}

Outcome failed(const CLI::App& app, ErrorForm form, const Failure& failure) {
  Outcome outcome;
  outcome.exit_code = kFailed;
  (form == ErrorForm::json ? outcome.out : outcome.error) = format_error(app, form, failure);
  return outcome;
}

/// What to print instead of running: help, version, or what is wrong with the command line.
Outcome parse_outcome(const CLI::App& app, ErrorForm form, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) {
    std::ostringstream out;
    app.exit(error, out, out);
    return {out.str(), "", kFine};
  }
  return failed(app, form,
                {Errc::usage, 0, fmt::format("{}; see '{} --help'", error.what(), app.get_name())});
}

Outcome run_body(const CLI::App& app, ErrorForm form, const Comm& comm,
                 const std::function<int(const Comm&)>& body) {
  try {
    return {"", "", body(comm)};
  } catch (...) {
    const Failure failure = describe_current_exception(comm.rank());
    const Outcome outcome = failed(app, form, failure);
    // After a timeout the ranks know different things, and rank 0 may be the one that is missing.
    if (comm.size() > 1 && (!failure.agreed || failure.code == Errc::timeout)) {
      tell(outcome);
      MPI_Abort(MPI_COMM_WORLD, kFailed);
    }
    return outcome;
  }
}

int run_under_mpi(const CLI::App& app, ErrorForm form,
                  const std::function<int(const Comm&)>& body) {
  Comm comm(MPI_COMM_WORLD, kDeadline);
  const Outcome outcome = run_body(app, form, comm, body);
  const int exit_code = comm.is_root() ? tell(outcome) : outcome.exit_code;
  comm.close();
  return exit_code;
}

}  // namespace

int run_program(CLI::App& app, int argc, char** argv, ErrorForm form,
                const std::function<int(const Comm&)>& body) {
  Outcome parsed;
  bool proceed = true;
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    proceed = false;
    parsed = parse_outcome(app, form, error);
  }
  if (!proceed && !under_launcher()) {
    return tell(parsed);
  }
  if (!under_launcher()) stay_alone();
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is an error of the write then
  MPI_Init(&argc, &argv);
  int exit_code = parsed.exit_code;
  try {
    exit_code = run_under_mpi(app, form, [&](const Comm& comm) {
      if (proceed) return body(comm);
      return comm.is_root() ? tell(parsed) : parsed.exit_code;
    });
  } catch (const std::exception& error) {
    tell(failed(app, form, {Errc::internal, 0, error.what()}));
    MPI_Abort(MPI_COMM_WORLD, kFailed);
  }
  // A launcher ends the job at the first rank that leaves with an error: all have spoken before
  // that.
  MPI_Finalize();
  return exit_code;
}

}  // namespace cairn::tool
