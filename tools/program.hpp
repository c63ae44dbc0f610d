#pragma once

#include <functional>
#include <string>

#include "cairn/comm.hpp"

namespace CLI {
class App;
}

namespace cairn::tool {

// Exit codes of every program and verb.
inline constexpr int kFine = 0;       ///< done; equal; whole
inline constexpr int kDifferent = 1;  ///< a difference or a defect was found
inline constexpr int kFailed = 2;     ///< usage or error

/// How a failed program tells why.
enum class ErrorForm {
  text,  ///< one line on stderr
  json,  ///< {"error": {"code", "message", "rank"}} on stdout
};

/// The frame of a program that starts plain or under an MPI launcher: parses the command line, runs
/// `body` on all ranks between MPI_Init and MPI_Finalize, and gives the exit code. Help and usage
/// errors of a plain start never touch MPI. Every failure is told once, by rank 0, and ends all
/// ranks with kFailed; one that the ranks have not agreed on ends the job with MPI_Abort, so that
/// nobody waits.
int run_program(CLI::App& app, int argc, char** argv, ErrorForm form,
                const std::function<int(const Comm&)>& body);

}  // namespace cairn::tool
