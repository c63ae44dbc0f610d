// Fuzzing without libFuzzer: fuzz_readers SECONDS DIRECTORY... Reads every file and every directory
// of files below the given ones as they are, then broken copies of them, always the same ones in
// the same order, until the time is up. What breaks a reader is written to fuzz-finding.bin.
#include <signal.h>
#include <sys/time.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "fuzz/mutate.hpp"
#include "fuzz/reader_target.hpp"
#include "fuzz/seeds.hpp"

namespace {

using Clock = std::chrono::steady_clock;

const std::string* running = nullptr;

/// Called when a sanitizer found something, a reader aborts, or one input takes too long.
void keep_finding() {
  if (running == nullptr) return;
  std::ofstream("fuzz-finding.bin", std::ios::binary) << *running;
  std::fputs("fuzz_readers: the input is in fuzz-finding.bin\n", stderr);
  running = nullptr;
}

void on_signal(int number) {
  std::fprintf(stderr, "fuzz_readers: signal %d\n", number);
  keep_finding();
  signal(number, SIG_DFL);
  raise(number);
}

void run(const std::string& input) {
  constexpr itimerval kMost{{0, 0}, {20, 0}};  // of the processor's time: the machine may be busy
  running = &input;
  setitimer(ITIMER_PROF, &kMost, nullptr);
  cairn::fuzz::read_input({reinterpret_cast<const std::uint8_t*>(input.data()), input.size()});
  running = nullptr;
}

}  // namespace

// There with a sanitizer only.
extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: fuzz_readers SECONDS DIRECTORY...   (or: fuzz_readers INPUT)\n", stderr);
    return 2;
  }
  const bool sanitized = __sanitizer_set_death_callback != nullptr;
  if (sanitized) __sanitizer_set_death_callback(keep_finding);
  for (const int number : {SIGABRT, SIGPROF}) signal(number, on_signal);
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) {
    if (!sanitized) signal(number, on_signal);
  }
  if (std::filesystem::is_regular_file(argv[1])) {  // a finding, again
    std::ifstream in(argv[1], std::ios::binary);
    run({std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()});
    return 0;
  }
  const auto end = Clock::now() + std::chrono::seconds(std::atoi(argv[1]));
  const std::vector<std::filesystem::path> directories(argv + 2, argv + argc);
  const std::vector<std::string> seeds = cairn::fuzz::seeds(directories);
  for (const std::string& seed : seeds) run(seed);
  std::mt19937_64 random(20261128);
  std::size_t broken = 0;
  while (Clock::now() < end) {
    std::string input = seeds[random() % seeds.size()];
    cairn::fuzz::mutate(input, random, seeds[random() % seeds.size()]);
    run(input);
    ++broken;
  }
  std::printf("%zu inputs, %zu broken ones\n", seeds.size(), broken);
  return 0;
}
