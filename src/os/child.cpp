#include "os/child.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <thread>

extern char** environ;

namespace cairn::detail {
namespace {

using Clock = std::chrono::steady_clock;

/// Starts the program with its stdout at `out`; -1 where that fails.
pid_t start(const std::vector<std::string>& words, int out) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  // The thread that starts it may take no signals; the program is to.
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t child = -1;
  if (posix_spawnp(&child, arguments[0], &actions, &attributes, arguments.data(), environ) != 0) {
    child = -1;
  }
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return child;
}

/// All that comes until the other end is closed; false when time is up, or nobody wants it any
/// more.
bool read_all(int in, Clock::time_point end, const std::function<bool()>& given_up,
              std::string& text) {
  constexpr std::chrono::milliseconds kSlice{100};
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
    if (left.count() <= 0 || (given_up && given_up())) return false;
    const auto slice = given_up ? std::min(left, kSlice) : left;
    pollfd one{in, POLLIN, 0};
    if (poll(&one, 1, static_cast<int>(slice.count())) < 0 && errno != EINTR) return false;
    if (one.revents == 0) continue;
    std::array<char, 4096> buffer;
    const ssize_t got = read(in, buffer.data(), buffer.size());
    if (got == 0) return true;
    if (got < 0 && errno != EINTR) return false;
    if (got > 0) text.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

// A process that waits for a dead file system does not even end by SIGKILL.
constexpr std::chrono::seconds kDying{2};

/// The status of a child that has ended, or is killed when time is up; -1 where it does not end.
int end_of(pid_t child, Clock::time_point end) {
  int status = 0;
  for (;;) {
    const pid_t ended = waitpid(child, &status, WNOHANG);
    if (ended == child) return status;
    if (ended < 0 && errno != EINTR) return -1;
    if (Clock::now() >= end) kill(child, SIGKILL);
    if (Clock::now() >= end + kDying) return -1;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

std::optional<std::string> output_of(const std::vector<std::string>& words,
                                     std::chrono::milliseconds limit,
                                     const std::function<bool()>& given_up) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return std::nullopt;
  const pid_t child = start(words, ends[1]);
  close(ends[1]);
  std::string text;
  const auto end = Clock::now() + limit;
  const bool whole = child > 0 && read_all(ends[0], end, given_up, text);
  close(ends[0]);
  if (child <= 0) return std::nullopt;
  const int status = end_of(child, whole ? end : Clock::now());
  if (!whole || !WIFEXITED(status) || WEXITSTATUS(status) != 0) return std::nullopt;
  return text;
}

}  // namespace cairn::detail
