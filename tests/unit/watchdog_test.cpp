#include "mpi/watchdog.hpp"

#include <gtest/gtest.h>

#include <atomic>

#include "cairn/comm.hpp"

namespace cairn::detail {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::uint64_t no_activity() { return 0; }

/// A call of the library that never returns.
void hang(Watchdog& dog) {
  dog.watch("write", "model/x", [] { std::this_thread::sleep_for(seconds(600)); });
}

TEST(WatchdogDeathTest, EndsAProcessThatHangsAndSaysWhere) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        Watchdog dog(3, "/run/step-1.h5", milliseconds(200), no_activity);
        hang(dog);
      },
      "rank 3: '/run/step-1.h5': no progress within 0.2 s in the step 'write' of 'model/x'");
}

TEST(Watchdog, WhatGoesOnIsLeftAlone) {
  std::atomic<std::uint64_t> moved = 0;
  Watchdog dog(0, "file", seconds(1), [&] { return moved.load(); });
  // One call, much longer than the limit and the grace that follows it, but bytes move.
  const int result = dog.watch("write", "model/x", [&] {
    for (int i = 0; i < 100; ++i) {
      std::this_thread::sleep_for(milliseconds(50));
      ++moved;
    }
    return 7;
  });
  EXPECT_EQ(result, 7);
}

TEST(Watchdog, TimeBetweenCallsDoesNotCount) {
  Watchdog dog(0, "file", milliseconds(500), no_activity);
  dog.watch("write", "a", [] {});
  std::this_thread::sleep_for(milliseconds(3500));  // more than limit and grace
  dog.watch("write", "b", [] {});
}

TEST(Watchdog, NoLimitNoWatch) {
  Watchdog dog(0, "file", milliseconds(0), no_activity);
  dog.watch("write", "a", [] { std::this_thread::sleep_for(milliseconds(2500)); });
  EXPECT_THROW(dog.watch("write", "a", [] { throw Error(Errc::io, "x"); }), Error);
}

}  // namespace
}  // namespace cairn::detail
