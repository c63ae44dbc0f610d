// The lease of a run's directory, between processes and between machines that are made up.
#include "checkpoint/lease.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <thread>
#include <variant>

#include "base/throw.hpp"
#include "manifest/names.hpp"
#include "os/small_file.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

class LeaseTest : public testing::Test {
 protected:
  void SetUp() override {
    // In memory where that goes: every lease is synced. Other file systems are tested by name.
    const bool memory = access("/dev/shm", W_OK) == 0;
    const char* chosen = std::getenv("CAIRN_TEST_LEASE_DIR");
    const std::string parent = chosen != nullptr ? chosen
                               : memory          ? "/dev/shm"
                                                 : testing::TempDir();
    std::string name = parent + "/cairn-lease-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    dir_ = name;
  }
  void TearDown() override {
    unsetenv("SLURM_JOB_ID");
    unsetenv("SLURM_RESTART_COUNT");
    unsetenv("CAIRN_FAULT");
    fs::remove_all(dir_);
  }

  fs::path lease() const { return dir_ / names::kLease; }
  std::string text() const { return read_small_file(lease()).value_or(""); }
  std::size_t files() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(dir_), fs::directory_iterator()));
  }
  void put(const fs::path& path, const std::string& text) const {
    std::ofstream(path, std::ios::binary) << text;
  }
  /// Who holds a lease on another machine.
  static LeaseHolder stranger() {
    LeaseHolder holder = this_holder(0x1234);
    holder.host = "far-away";
    holder.boot = "another";
    holder.user = "alice";
    return holder;
  }
  /// Runs `body` in another process, which then dies of SIGKILL.
  template <class F>
  void in_process_that_dies(F&& body) const {
    const pid_t child = fork();
    if (child == 0) {
      body();
      raise(SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
  }
  /// The lease, or the text of the refusal.
  std::variant<std::unique_ptr<Lease>, std::string> try_take(LeaseOptions options = {}) const {
    try {
      LeaseAttempt attempt(dir_, options);
      while (!attempt.advance()) std::this_thread::sleep_for(1ms);
      return attempt.take();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::refused);
      return error.what();
    }
  }
  std::unique_ptr<Lease> take(LeaseOptions options = {}) const {
    auto taken = try_take(options);
    if (auto* refused = std::get_if<std::string>(&taken)) ADD_FAILURE() << *refused;
    return std::holds_alternative<std::string>(taken) ? nullptr : std::get<0>(std::move(taken));
  }
  std::string refusal(LeaseOptions options = {}) const {
    auto taken = try_take(options);
    return std::holds_alternative<std::string>(taken) ? std::get<1>(taken) : "taken";
  }

  void leave_dead(int claimants) const;

  fs::path dir_;
};

TEST_F(LeaseTest, OneHoldsItAndGivesItBack) {
  setenv("SLURM_JOB_ID", "4711", 1);
  auto held = take();
  EXPECT_EQ(files(), 1U);
  const std::string why = refusal();
  for (const std::string& part :
       {std::string("job 4711"), std::to_string(getpid()), this_holder(1).host, lease().string()}) {
    EXPECT_NE(why.find(part), std::string::npos) << part << " in: " << why;
  }
  EXPECT_EQ(files(), 1U) << "the one that was refused left nothing";
  held.reset();
  EXPECT_EQ(files(), 0U);
  EXPECT_NE(take(), nullptr);
}

TEST_F(LeaseTest, ThatOfADeadProcessIsTakenOverAtOnce) {
  in_process_that_dies([&] {
    auto held = take();
    static_cast<void>(held.release());
  });
  ASSERT_NE(text(), "");
  LeaseAttempt attempt(dir_, {});
  EXPECT_TRUE(attempt.advance());
}

TEST_F(LeaseTest, OneThatDiedWhileItTookOverIsInNobodysWay) {
  in_process_that_dies([&] { static_cast<void>(take().release()); });
  in_process_that_dies([&] {
    setenv("CAIRN_FAULT", "lease.claimed:0:kill", 1);
    take();
  });
  ASSERT_GT(files(), 1U);
  auto held = take();
  EXPECT_EQ(holder_of(text()).process, getpid());
  EXPECT_EQ(files(), 1U);
}

TEST_F(LeaseTest, OneThatIsAboutToTakeOverIsWaitedFor) {
  in_process_that_dies([&] { static_cast<void>(take().release()); });
  const std::string dead = text();
  const pid_t child = fork();
  if (child == 0) {
    setenv("CAIRN_FAULT", "lease.claimed:0:stay", 1);
    take();
    _exit(0);
  }
  while (!fs::exists(dir_ / names::lease_claim(holder_of(dead).nonce, holder_of(dead).nonce))) {
    std::this_thread::sleep_for(1ms);  // the test's time limit ends it
  }
  EXPECT_NE(refusal().find(std::to_string(child)), std::string::npos);
  EXPECT_EQ(text(), dead);
  kill(child, SIGKILL);
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
  auto held = take();
  EXPECT_EQ(holder_of(text()).process, getpid());
  EXPECT_EQ(files(), 1U);
}

TEST_F(LeaseTest, AHolderFarAwayIsWatchedAndRefusesByItsHeartbeat) {
  put(lease(), lease_text(stranger(), 5));
  LeaseAttempt attempt(dir_, {.heartbeat = 10s, .patience = 1h});
  EXPECT_FALSE(attempt.advance());
  EXPECT_FALSE(attempt.advance());
  EXPECT_NE(attempt.watched().find("alice on far-away"), std::string::npos);
  put(lease(), lease_text(stranger(), 6));
  EXPECT_THROW(attempt.advance(), Error);
}

TEST_F(LeaseTest, AHolderFarAwayThatShowsNothingIsDead) {
  put(lease(), lease_text(stranger(), 5));
  auto held = take({.heartbeat = 10s, .patience = 20ms});
  EXPECT_EQ(holder_of(text()).process, getpid());
  EXPECT_FALSE(held->lost());
}

TEST_F(LeaseTest, OneThatDiedFarAwayWhileItTookOverIsInNobodysWay) {
  put(lease(), lease_text(stranger(), 5));
  LeaseHolder rival = stranger();
  rival.nonce = 0x5678;
  put(dir_ / names::lease_claim(stranger().nonce, stranger().nonce), lease_text(rival, 0));
  auto held = take({.heartbeat = 10s, .patience = 20ms});
  EXPECT_EQ(holder_of(text()).process, getpid());
  EXPECT_EQ(files(), 1U);
}

TEST_F(LeaseTest, NobodyWatchesWithoutPatience) {
  put(lease(), lease_text(stranger(), 5));
  EXPECT_NE(refusal({.heartbeat = 10s, .patience = 0ms}).find("alice on far-away"),
            std::string::npos);
}

TEST_F(LeaseTest, ARequeuedJobTakesItsOwnOver) {
  setenv("SLURM_JOB_ID", "12", 1);
  LeaseHolder before = stranger();
  put(lease(), lease_text(before, 5));
  setenv("SLURM_RESTART_COUNT", "1", 1);
  const LeaseOptions forever{.heartbeat = 10s, .patience = 1h};
  {
    LeaseAttempt attempt(dir_, forever);
    EXPECT_TRUE(attempt.advance());
  }
  // Another job, or another step of this one, is watched.
  for (const auto& [job, restarts] : {std::pair("13", 0), {"12", 1}, {"12", 2}}) {
    before.job = job;
    before.restarts = static_cast<std::uint64_t>(restarts);
    fs::remove(lease());
    put(lease(), lease_text(before, 5));
    LeaseAttempt attempt(dir_, forever);
    EXPECT_FALSE(attempt.advance()) << job << " " << restarts;
  }
}

TEST_F(LeaseTest, TextThatIsNoLeaseIsWatchedLikeOne) {
  for (const char* garbage : {"", "x", "{}", "00000000000000000001\n{\"nonce\": 7}"}) {
    put(lease(), garbage);
    EXPECT_NE(refusal({.heartbeat = 10s, .patience = 0ms}).find("somebody"), std::string::npos);
    EXPECT_NE(take({.heartbeat = 10s, .patience = 5ms}), nullptr) << garbage;
  }
}

TEST_F(LeaseTest, ATakenOverHolderNoticesAndLeavesTheSuccessorAlone) {
  auto held = take({.heartbeat = 1ms, .patience = 1h});
  const std::string theirs = lease_text(stranger(), 9);
  put(dir_ / "theirs", theirs);
  fs::rename(dir_ / "theirs", lease());
  while (!held->lost()) std::this_thread::sleep_for(1ms);  // the test's time limit ends it
  held.reset();
  EXPECT_EQ(text(), theirs);
}

TEST_F(LeaseTest, AHeartbeatChangesTheFileAndNothingElse) {
  auto held = take({.heartbeat = 1ms, .patience = 1h});
  const std::string first = text();
  std::string now = first;
  while (now == first) now = text();
  EXPECT_EQ(now.size(), first.size());
  EXPECT_EQ(now.substr(kBeatBytes), first.substr(kBeatBytes));
  EXPECT_FALSE(held->lost());
}

/// What came of a rival, in memory that it shares with the test.
enum Result : int { undecided, holds, refused };

/// A process that wants the lease, and stops where CAIRN_FAULT says, and again when it is decided:
/// then it keeps what it has until it is killed.
class Rival {
 public:
  template <class Take>
  Rival(const std::string& faults, Take&& take) {
    result_ = static_cast<int*>(
        mmap(nullptr, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    process_ = fork();
    if (process_ != 0) return;
    setenv("CAIRN_FAULT", faults.c_str(), 1);
    const auto taken = take();
    *result_ = std::holds_alternative<std::string>(taken) ? refused : holds;
    raise(SIGSTOP);
    _exit(0);
  }
  ~Rival() {
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
    munmap(result_, sizeof(int));
  }
  Rival(const Rival&) = delete;
  Rival& operator=(const Rival&) = delete;

  /// Until it stops: where it was told to, or decided.
  void wait() const {
    int status = 0;
    ASSERT_EQ(waitpid(process_, &status, WUNTRACED), process_);
    ASSERT_TRUE(WIFSTOPPED(status)) << status;
  }
  void go_on() const {
    if (*result_ == undecided) {
      kill(process_, SIGCONT);
      wait();
    }
  }
  int result() const { return *result_; }
  pid_t process() const { return process_; }

 private:
  int* result_ = nullptr;
  pid_t process_ = -1;
};

/// A dead holder, and so many that died one after the other while they took its lease over.
void LeaseTest::leave_dead(int claimants) const {
  in_process_that_dies([&] { static_cast<void>(take().release()); });
  for (int i = 0; i < claimants; ++i) {
    in_process_that_dies([&] {
      setenv("CAIRN_FAULT", "lease.claimed:0:kill", 1);
      take();
    });
  }
}

TEST_F(LeaseTest, HoweverTwoRivalsTakeTurnsOneGetsIt) {
  const char* const points[] = {"lease.dead", "lease.claimant", "lease.claimed", "lease.checked"};
  const auto take = [&] { return try_take(); };
  int both_stopped = 0;
  for (const int claimants : {0, 1, 2}) {
    for (const std::string first : points) {
      for (const std::string second : points) {
        SCOPED_TRACE(testing::Message() << claimants << " dead claimants, the first stops at "
                                        << first << ", the second at " << second);
        fs::remove(lease());
        leave_dead(claimants);
        {
          const Rival a(first + ":0:stop", take);
          a.wait();
          const Rival b(second + ":0:stop", take);
          b.wait();
          both_stopped += a.result() == undecided && b.result() == undecided ? 1 : 0;
          a.go_on();
          b.go_on();
          EXPECT_NE(a.result(), undecided);
          EXPECT_NE(b.result(), undecided);
          EXPECT_EQ((a.result() == holds) + (b.result() == holds), 1);
          EXPECT_EQ(holder_of(text()).process, (a.result() == holds ? a : b).process());
        }
        auto next = this->take();
        EXPECT_EQ(files(), 1U) << "what the dead left is removed";
      }
    }
  }
  EXPECT_GT(both_stopped, 10) << "rivals did meet";
}

TEST_F(LeaseTest, OfManyProcessesThatWantADeadOnesLeaseOneGetsIt) {
  for (int round = 0; round < 30; ++round) {
    fs::remove(lease());
    leave_dead(round % 3);
    int gate[2];
    ASSERT_EQ(pipe2(gate, O_CLOEXEC), 0);
    std::vector<std::unique_ptr<Rival>> rivals;
    for (int i = 0; i < 8; ++i) {
      rivals.push_back(std::make_unique<Rival>("", [&] {
        char byte = 0;
        close(gate[1]);
        if (read(gate[0], &byte, 1) != 0) _exit(1);  // until the test closes the other end
        return try_take();
      }));
    }
    close(gate[0]);
    close(gate[1]);
    int holders = 0;
    for (const auto& rival : rivals) {
      rival->wait();
      holders += rival->result() == holds ? 1 : 0;
    }
    EXPECT_EQ(holders, 1) << "round " << round;
  }
}

TEST_F(LeaseTest, AnAnswerThatAServerLostChangesNothing) {
  for (const char* fault : {"lease.link:0:twice", "lease.link:0:twice:2", "lease.rename:0:twice"}) {
    SCOPED_TRACE(fault);
    fs::remove(lease());
    leave_dead(1);
    setenv("CAIRN_FAULT", fault, 1);
    auto held = take();
    unsetenv("CAIRN_FAULT");
    ASSERT_NE(held, nullptr);
    EXPECT_EQ(holder_of(text()).process, getpid());
    EXPECT_EQ(files(), 1U);
    EXPECT_NE(refusal().find("is in use by"), std::string::npos);
  }
  setenv("CAIRN_FAULT", "lease.link:0:twice", 1);
  EXPECT_NE(take(), nullptr) << "where there was no lease";
}

TEST_F(LeaseTest, OneThatDiedWhileItGaveTheLeaseBackIsInNobodysWay) {
  in_process_that_dies([&] {
    auto held = take();
    setenv("CAIRN_FAULT", "lease.leaving:0:kill", 1);
    held.reset();
  });
  ASSERT_EQ(files(), 2U);
  auto held = take();
  EXPECT_EQ(holder_of(text()).process, getpid());
  EXPECT_EQ(files(), 1U);
}

TEST_F(LeaseTest, AHolderThatGivesItBackLeavesThatOfASuccessorAlone) {
  auto held = take({.heartbeat = 1h, .patience = 1h});
  const std::string theirs = lease_text(stranger(), 9);
  put(dir_ / "theirs", theirs);
  fs::rename(dir_ / "theirs", lease());
  EXPECT_FALSE(held->lost()) << "no heartbeat since";
  held->look();
  EXPECT_TRUE(held->lost());
  held.reset();
  EXPECT_EQ(text(), theirs);
}

TEST_F(LeaseTest, OfManyThatWantADeadOnesLeaseOneGetsIt) {
  for (int round = 0; round < 10; ++round) {
    fs::remove(lease());
    in_process_that_dies([&] { static_cast<void>(take().release()); });
    std::array<std::unique_ptr<LeaseAttempt>, 6> attempts;
    std::array<bool, 6> won{};
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < attempts.size(); ++i) {
      attempts[i] = std::make_unique<LeaseAttempt>(dir_, LeaseOptions{});
      threads.emplace_back([&, i] {
        try {
          while (!(won[i] = attempts[i]->advance())) std::this_thread::yield();
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), Errc::refused) << error.what();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(std::count(won.begin(), won.end(), true), 1);
  }
}

}  // namespace
}  // namespace cairn::detail
