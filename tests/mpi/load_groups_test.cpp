// Pieces that some of the ranks want, but not all: read once and sent within their group.
#include <algorithm>
#include <cstring>

#include "cairn/checkpoint.hpp"
#include "mpi/nodes.hpp"
#include "support/mpi_test.hpp"

namespace cairn {
namespace {

using namespace test;

constexpr BroadcastReplicas kWays[] = {BroadcastReplicas::automatic, BroadcastReplicas::never,
                                       BroadcastReplicas::always};

std::byte byte_at(std::uint64_t salt, std::uint64_t element) {
  const std::uint64_t mixed = (element + salt) * 6364136223846793005U;
  return static_cast<std::byte>(mixed >> 56);
}

/// The bytes of a piece of a two-dimensional tensor of u8.
std::vector<std::byte> bytes_of(std::uint64_t salt, const Placement& piece) {
  std::vector<std::byte> bytes;
  const Box& box = piece.box;
  if (piece.kind == Placement::Kind::flat) {
    for (std::uint64_t i = 0; i < box.count[0]; ++i) {
      bytes.push_back(byte_at(salt, box.start[0] + i));
    }
    return bytes;
  }
  for (std::uint64_t r = 0; r < box.count[0]; ++r) {
    for (std::uint64_t c = 0; c < box.count[1]; ++c) {
      const std::uint64_t row = box.start[0] + r;
      bytes.push_back(byte_at(salt, row * piece.global_shape[1] + box.start[1] + c));
    }
  }
  return bytes;
}

std::uint64_t sum_over_ranks(std::uint64_t value) {
  std::uint64_t sum[1] = {value};
  world().all_reduce_sum(sum);
  return sum[0];
}

struct Target {
  std::string name;
  Placement placement;
};

/// How the ranks of a job share the columns of tensors: by twos, the last of an odd number alone.
int pairs() { return (world().size() + 1) / 2; }

class Groups : public testing::Test {
 protected:
  void SetUp() override {
    // Rows by all ranks, columns by pairs of ranks (a chunk grid in the file), and a whole one.
    const int ranks = world().size();
    const int rank = world().rank();
    add_saved("model/rows", Placement::split({97, 64}, 0, ranks, rank));
    add_saved("model/columns", Placement::split({301, 1000}, 1, pairs(), rank / 2));
    add_saved("model/whole", Placement::replicated({50, 33}));
    StateView state;
    for (std::size_t i = 0; i < saved_.size(); ++i) {
      state.tensors.push_back({saved_[i].name, DType::u8, saved_[i].placement, memory_[i].data()});
    }
    path_ = scratch() / "step-00000001.h5";
    Saver(world(), {}).save(path_, state);
    manifest_ = open_checkpoint(world(), path_);
  }

  static std::uint64_t salt_of(const std::string& name) { return name.size() * 1000; }

  void add_saved(const std::string& name, Placement placement) {
    memory_.push_back(bytes_of(salt_of(name), placement));
    saved_.push_back({name, std::move(placement)});
  }

  LoadResult load(const std::vector<Target>& wanted, const LoadOptions& options) {
    std::vector<std::vector<std::byte>> memory;
    std::vector<MutableTensorView> targets;
    for (const Target& target : wanted) {
      memory.emplace_back(target.placement.elements());
      targets.push_back({target.name, DType::u8, target.placement, memory.back().data()});
    }
    const LoadResult result = load_tensors(world(), manifest_, targets, options);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      EXPECT_TRUE(memory[i] == bytes_of(salt_of(wanted[i].name), wanted[i].placement))
          << wanted[i].name << " on rank " << world().rank();
    }
    return result;
  }

  std::vector<Target> saved_;
  std::vector<std::vector<std::byte>> memory_;
  std::filesystem::path path_;
  Manifest manifest_;
};

TEST_F(Groups, EveryWayBringsTheSameBytesAndAlwaysReadsEachOnce) {
  // Pairs want the same columns (in memory not one run of the file), the same rows, and the same
  // flat range.
  const int pair = world().rank() / 2;
  const std::vector<Target> wanted{
      {"model/columns", Placement::split({301, 1000}, 1, pairs(), pair)},
      {"model/rows", Placement::split({97, 64}, 0, pairs(), pair)},
      {"model/whole", Placement::replicated({50, 33})}};
  std::uint64_t bytes = 0;
  for (const Target& target : wanted) bytes += target.placement.elements();
  for (const BroadcastReplicas way : kWays) {
    const LoadResult result = load(wanted, {.verify = VerifyWhen::never, .broadcast = way});
    // What lies between columns that are read together is read, too.
    EXPECT_GE(result.bytes_read + result.bytes_received, bytes);
    if (way == BroadcastReplicas::always) {
      EXPECT_EQ(sum_over_ranks(bytes) - sum_over_ranks(result.bytes_received),
                301U * 1000 + 97 * 64 + 50 * 33);
    } else {
      EXPECT_EQ(result.bytes_received, 0U) << "too little to try a broadcast";
    }
  }
}

TEST_F(Groups, OverlapInAnyWay) {
  const int ranks = world().size();
  const int rank = world().rank();
  std::vector<Target> wanted;
  // All but the last; all but the first; those of odd number; each rank and the next one.
  const auto rows = [](std::uint64_t first, std::uint64_t count) {
    return Placement::block({97, 64}, Box{{first, 0}, {count, 64}});
  };
  if (rank != ranks - 1) wanted.push_back({"model/rows", rows(0, 20)});
  if (rank != 0) wanted.push_back({"model/rows", rows(20, 25)});
  if (rank % 2 == 1) wanted.push_back({"model/columns", Placement::replicated({301, 1000})});
  for (const int part : {rank, (rank + 1) % ranks}) {
    wanted.push_back({"model/rows", rows(45 + static_cast<std::uint64_t>(part), 1)});
  }
  // The same piece a second time, for memory of its own.
  if (rank % 2 == 1) wanted.push_back({"model/columns", Placement::replicated({301, 1000})});
  if (rank % 3 == 0) std::reverse(wanted.begin(), wanted.end());
  std::uint64_t bytes = 0;
  for (const Target& target : wanted) bytes += target.placement.elements();
  for (const BroadcastReplicas way : kWays) {
    const LoadResult result = load(wanted, {.broadcast = way});
    EXPECT_GE(result.bytes_read + result.bytes_received, bytes);
    if (way == BroadcastReplicas::always && ranks >= 3) {
      EXPECT_GT(sum_over_ranks(result.bytes_received), 0U);
    }
  }
}

TEST_F(Groups, AFailureOfOneMemberIsThatOfAllAndNamesItsRankInTheJob) {
  const int ranks = world().size();
  if (ranks < 3) return;  // a group that is not all ranks
  std::vector<Target> wanted;
  if (world().rank() >= ranks - 2) {
    wanted.push_back({"model/columns", Placement::replicated({301, 1000})});
  }
  const std::string last = std::to_string(ranks - 1);
  const ScopedFault fault("load.replicated:" + last + ":error");
  const std::string text =
      expect_same_error(Errc::io, [&] { load(wanted, {.broadcast = BroadcastReplicas::always}); });
  EXPECT_NE(text.find("load: move: rank " + last + ": "), std::string::npos) << text;
  EXPECT_NE(text.find("partly filled"), std::string::npos) << text;
}

TEST(LargeGroups, AutomaticTriesBothWays) {
  if (world().size() != 3) return;  // once is enough, for the sake of the machine
  constexpr std::uint64_t kRows = 73 << 10;
  const Placement whole = Placement::replicated({kRows, 1 << 10});
  const Placement mine = Placement::split({kRows, 1 << 10}, 0, 3, world().rank());
  const auto bytes = bytes_of(5, mine);
  StateView state;
  state.tensors.push_back({"model/w", DType::u8, mine, bytes.data()});
  const auto path = scratch() / "step-00000001.h5";
  Saver(world(), {}).save(path, state);
  std::vector<MutableTensorView> targets;
  std::vector<std::byte> memory;
  if (world().rank() != 1) {
    memory.resize(whole.elements());
    targets.push_back({"model/w", DType::u8, whole, memory.data()});
  }
  const LoadResult result =
      load_tensors(world(), open_checkpoint(world(), path), targets, {.verify = VerifyWhen::never});
  EXPECT_EQ(result.bytes_read + result.bytes_received, memory.size());
  if (world().rank() == 1) return;
  EXPECT_GE(result.bytes_received, std::uint64_t{8} << 20) << "the first round is a broadcast";
  EXPECT_GE(result.bytes_read, std::uint64_t{24} << 20) << "the second one is not";
  EXPECT_TRUE(memory == bytes_of(5, whole));
}

TEST(Parts, NameTheRanksOfTheWhole) {
  const int ranks = world().size();
  const bool inside = world().rank() > 0;
  auto part = detail::part_of(world(), inside ? std::optional(7) : std::nullopt);
  ASSERT_EQ(part.has_value(), inside);
  if (inside) {
    EXPECT_EQ(part->size(), ranks - 1);
    EXPECT_EQ(part->rank(), world().rank() - 1);
    try {
      agree(*part, "step", [&] {
        if (world().rank() == ranks - 1) throw Error(Errc::io, "cause");
      });
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.what(), "step: rank " + std::to_string(ranks - 1) + ": cause");
      EXPECT_EQ(error.rank(), ranks - 1);
    }
    part->close();
  }
  Comm impatient(MPI_COMM_WORLD, std::chrono::milliseconds(300));
  auto late = detail::part_of(impatient, inside ? std::optional(0) : std::nullopt);
  if (ranks >= 3 && inside && world().rank() != ranks - 1) {
    try {
      agree(*late, "step", [] {});
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.rank(), ranks - 1);
      EXPECT_NE(std::string(error.what()).find("rank " + std::to_string(ranks - 1)),
                std::string::npos)
          << error.what();
    }
  }
  agree(world(), "meet again", [] {});
}

}  // namespace
}  // namespace cairn
