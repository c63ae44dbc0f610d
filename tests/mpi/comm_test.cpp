#include <algorithm>
#include <numeric>

#include "mpi/pending_max.hpp"
#include "mpi/time_limit.hpp"
#include "support/mpi_test.hpp"

namespace cairn {
namespace {

using test::expect_same_error;
using test::world;

TEST(Agree, TheLowestFailingRankSpeaksForAll) {
  const std::string text = expect_same_error(Errc::io, [] {
    agree(world(), "step", [] {
      if (world().rank() >= world().size() / 2) {
        throw Error(Errc::io, "cause " + std::to_string(world().rank()));
      }
    });
  });
  const std::string lowest = std::to_string(world().size() / 2);
  EXPECT_EQ(text, "step: rank " + lowest + ": cause " + lowest);
}

TEST(Agree, AnyExceptionTravelsAndAnAgreedOneKeepsItsText) {
  EXPECT_EQ(
      expect_same_error(Errc::internal,
                        [] { agree(world(), "s", [] { throw std::runtime_error("boom"); }); }),
      "s: rank 0: boom");
  EXPECT_EQ(expect_same_error(Errc::corrupt,
                              [] {
                                agree(world(), "outer",
                                      [] { throw Error(Errc::corrupt, "inner: rank 0: bad", 0); });
                              }),
            "inner: rank 0: bad");
  agree(world(), "fine", [] {});
}

TEST(Comm, BroadcastAndGatherKeepEveryByte) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{3'000'000}}) {
    std::vector<std::byte> bytes(world().is_root() ? size : 5);
    std::fill(bytes.begin(), bytes.end(), static_cast<std::byte>(world().rank() + 1));
    world().broadcast(bytes);
    EXPECT_EQ(bytes.size(), size);
    EXPECT_TRUE(
        std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{1}; }));
  }
  const std::vector<std::byte> mine(static_cast<std::size_t>(world().rank()) * 100,
                                    static_cast<std::byte>(world().rank()));
  const auto all = world().gather(mine);
  ASSERT_EQ(all.size(), world().is_root() ? static_cast<std::size_t>(world().size()) : 0);
  for (std::size_t r = 0; r < all.size(); ++r) {
    EXPECT_EQ(all[r], std::vector<std::byte>(r * 100, static_cast<std::byte>(r)));
  }
}

TEST(Comm, ScatterAndExchangeBringEveryPartToItsRank) {
  const auto size = static_cast<std::size_t>(world().size());
  const auto me = static_cast<std::size_t>(world().rank());
  std::vector<std::vector<std::byte>> parts;
  for (std::size_t r = 0; world().is_root() && r < size; ++r) {
    parts.emplace_back(r * 1000, static_cast<std::byte>(r));
  }
  EXPECT_EQ(world().scatter(parts), std::vector<std::byte>(me * 1000, static_cast<std::byte>(me)));

  std::vector<std::vector<std::uint64_t>> out(size);  // rank r gets r words that name the sender
  for (std::size_t r = 0; r < size; ++r) out[r].assign(r, me);
  const auto in = world().exchange(out);
  ASSERT_EQ(in.size(), size);
  for (std::size_t r = 0; r < size; ++r) EXPECT_EQ(in[r], std::vector<std::uint64_t>(me, r));
}

TEST(Comm, AnExchangeInWhichSomeRanksHaveNothingLeavesAllInStep) {
  const auto size = static_cast<std::size_t>(world().size());
  const int last = world().size() - 1;
  std::vector<std::vector<std::uint64_t>> out(size);
  if (world().is_root()) out.back() = {7};
  const auto in = world().exchange(out);
  EXPECT_EQ(in.at(0),
            world().rank() == last ? std::vector<std::uint64_t>{7} : std::vector<std::uint64_t>{});
  EXPECT_TRUE(world().all_equal(1));
  world().exchange(std::vector<std::vector<std::uint64_t>>(size));
  EXPECT_TRUE(world().all_equal(2));
}

TEST(Comm, PrefixSumsAndEquality) {
  const std::uint64_t mine[] = {static_cast<std::uint64_t>(world().rank()) + 1};
  const auto before = world().exclusive_sum(mine);
  const auto rank = static_cast<std::uint64_t>(world().rank());
  EXPECT_EQ(before.at(0), rank * (rank + 1) / 2);
  std::uint64_t bits[] = {std::uint64_t{1} << rank, 6};
  world().all_reduce_xor(bits);
  EXPECT_EQ(bits[0], (std::uint64_t{1} << world().size()) - 1);
  EXPECT_EQ(bits[1], world().size() % 2 == 0 ? 0U : 6U);
  EXPECT_TRUE(world().all_equal(42));
  EXPECT_EQ(world().all_equal(rank), world().size() == 1);
}

TEST(Comm, ADeadlineNamesTheRanksThatDidNotCome) {
  if (world().size() < 3) return;  // needs two that wait and one that does not
  Comm impatient(MPI_COMM_WORLD, std::chrono::milliseconds(300));
  const int absent = world().size() - 1;
  if (world().rank() != absent) {
    try {
      agree(impatient, "save: move", [] {});
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::timeout);
      EXPECT_EQ(error.rank(), absent);
      EXPECT_NE(std::string(error.what()).find("rank " + std::to_string(absent) + " did not come"),
                std::string::npos)
          << error.what();
    }
  }
  agree(world(), "meet again", [] {});
}

TEST(PendingMax, ADeadlineNamesTheRanksThatDidNotCome) {
  if (world().size() < 3) return;  // needs two that wait and one that does not
  Comm impatient(MPI_COMM_WORLD, std::chrono::milliseconds(300));
  const int absent = world().size() - 1;
  if (world().rank() != absent) {
    detail::PendingMax pending(impatient);
    const std::uint64_t mine[] = {1};
    pending.post(mine);
    try {
      pending.wait("vote");
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::timeout);
      EXPECT_EQ(error.rank(), absent);
      EXPECT_NE(
          std::string(error.what()).find("vote: rank " + std::to_string(absent) + " did not come"),
          std::string::npos)
          << error.what();
    }
  }
  agree(world(), "meet again", [] {});
}

TEST(Comm, ATimeLimitEndsWaitsBeforeTheDeadline) {
  if (world().size() != 3) return;  // once is enough: it takes the ranks a while to be sure
  Comm patient(MPI_COMM_WORLD);
  if (world().rank() != 2) {
    const detail::TimeLimit limit(detail::TimeLimit::Clock::now() - std::chrono::seconds(60),
                                  "the time");
    try {
      agree(patient, "load: move", [] {});
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::timeout);
      EXPECT_NE(std::string(error.what()).find("rank 2 did not come before the time was over"),
                std::string::npos)
          << error.what();
    }
  }
  agree(world(), "meet again", [] {});
}

}  // namespace
}  // namespace cairn
