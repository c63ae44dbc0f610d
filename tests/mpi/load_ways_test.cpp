// The ways in which the bytes of a load come to the ranks, and in which they are checked.
#include <cstring>
#include <fstream>
#include <numeric>

#include "cairn/checkpoint.hpp"
#include "os/file.hpp"
#include "support/mpi_test.hpp"
#include "support/sample_state.hpp"

namespace cairn {
namespace {

using namespace test;

constexpr BroadcastReplicas kWays[] = {BroadcastReplicas::automatic, BroadcastReplicas::never,
                                       BroadcastReplicas::always};

void flip_byte(const std::filesystem::path& path, std::uint64_t at) {
  agree(world(), "damage", [&] {
    if (!world().is_root()) return;
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekg(static_cast<std::streamoff>(at));
    const char byte = static_cast<char>(file.get());
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(byte ^ 4));
  });
}

std::uint64_t sum_over_ranks(std::uint64_t value) {
  std::uint64_t sum[1] = {value};
  world().all_reduce_sum(sum);
  return sum[0];
}

/// Tensors of bytes that all ranks want whole: a large one and many small ones.
class Replicated : public testing::Test {
 protected:
  void SetUp() override {
    const auto ranks = static_cast<std::uint64_t>(world().size());
    // Enough for the automatic way to try both; not at 4 and 8 ranks, for the sake of the machine.
    add("model/big", ((ranks <= 3 ? 4 * ranks + 1 : 2) << 23) + 777);
    for (int i = 0; i < 50; ++i)
      add("model/small." + std::to_string(i), 1000 + static_cast<unsigned>(i));
    StateView state;
    for (const auto& [name, bytes] : stored_) {
      state.tensors.push_back(
          {name, DType::u8, Placement::replicated({bytes.size()}), bytes.data()});
      total_ += bytes.size();
    }
    path_ = scratch() / "step-00000001.h5";
    Saver(world(), {}).save(path_, state);
    manifest_ = open_checkpoint(world(), path_);
  }

  void add(const std::string& name, std::uint64_t count) {
    std::vector<std::byte>& bytes = stored_[name];
    bytes.resize(count);
    std::uint64_t value = count;
    for (std::byte& byte : bytes) {
      value = value * 6364136223846793005U + 1442695040888963407U;
      byte = static_cast<std::byte>(value >> 56);
    }
  }

  std::vector<MutableTensorView> targets() {
    std::vector<MutableTensorView> all;
    for (const auto& [name, bytes] : stored_) {
      auto& memory = memory_[name];
      memory.assign(bytes.size(), std::byte{0});
      all.push_back({name, DType::u8, Placement::replicated({bytes.size()}), memory.data()});
    }
    return all;
  }

  std::map<std::string, std::vector<std::byte>> stored_;
  std::map<std::string, std::vector<std::byte>> memory_;
  std::uint64_t total_ = 0;
  std::filesystem::path path_;
  Manifest manifest_;
};

TEST_F(Replicated, EveryWayBringsTheSameBytes) {
  for (const BroadcastReplicas way : kWays) {
    const auto wanted = targets();
    const LoadResult result = load_tensors(world(), manifest_, wanted, {.broadcast = way});
    EXPECT_TRUE(memory_ == stored_);
    EXPECT_EQ(result.bytes_read + result.bytes_received, total_);
    if (way == BroadcastReplicas::never || world().size() == 1) {
      EXPECT_EQ(result.bytes_received, 0U);
    }
    if (way == BroadcastReplicas::always) {
      EXPECT_EQ(sum_over_ranks(result.bytes_read), total_) << "every byte is read once";
    }
  }
}

TEST_F(Replicated, WhatOneRankWantsOnlyInPartIsSharedByTheOthers) {
  auto wanted = targets();
  const std::uint64_t half = stored_["model/big"].size() / 2;
  if (world().is_root()) {
    wanted.front().placement = Placement::block(wanted.front().placement.global_shape,
                                                Box{{half}, {stored_["model/big"].size() - half}});
  }
  const LoadResult result =
      load_tensors(world(), manifest_, wanted, {.broadcast = BroadcastReplicas::always});
  const std::uint64_t start = world().is_root() ? half : 0;
  EXPECT_EQ(std::memcmp(memory_["model/big"].data(), stored_["model/big"].data() + start,
                        stored_["model/big"].size() - start),
            0);
  EXPECT_EQ(memory_["model/small.7"], stored_["model/small.7"]);
  const std::uint64_t small = total_ - stored_["model/big"].size();
  const std::uint64_t by_others = world().size() > 1 ? stored_["model/big"].size() : 0;
  EXPECT_EQ(sum_over_ranks(result.bytes_read),
            stored_["model/big"].size() - half + by_others + small);
}

// As two views of one storage in a file of PyTorch do.
TEST(ReplicatedViews, MayStartAtTheSameByteWhateverTheOrderOfTheTargets) {
  const auto path = scratch() / "views";
  std::vector<std::uint8_t> stored(100);
  std::iota(stored.begin(), stored.end(), std::uint8_t{0});
  agree(world(), "write", [&] {
    if (!world().is_root()) return;
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(stored.data()),
               static_cast<std::streamsize>(stored.size()));
  });
  Manifest manifest;
  manifest.format = "test";
  manifest.files.push_back(
      {path, stored.size(), Access::extents, detail::File::open_read(path).fingerprint()});
  for (const std::uint64_t bytes : {100U, 30U}) {
    TensorEntry tensor;
    tensor.name = bytes == 100 ? "all" : "head";
    tensor.dtype = DType::u8;
    tensor.shape = {bytes};
    tensor.extents.resize(1);
    tensor.extents[0].box = Box::whole(tensor.shape);
    manifest.tensors.push_back(tensor);
  }
  std::vector<std::uint8_t> all(100);
  std::vector<std::uint8_t> head(30);
  std::vector<MutableTensorView> targets{
      {"all", DType::u8, Placement::replicated({100}), reinterpret_cast<std::byte*>(all.data())},
      {"head", DType::u8, Placement::replicated({30}), reinterpret_cast<std::byte*>(head.data())}};
  if (world().rank() % 2 == 1) std::swap(targets[0], targets[1]);
  load_tensors(world(), manifest, targets,
               {.verify = VerifyWhen::never, .broadcast = BroadcastReplicas::always});
  EXPECT_EQ(all, stored);
  EXPECT_TRUE(std::equal(head.begin(), head.end(), stored.begin()));
}

TEST_F(Replicated, AFailureOnOneRankIsThatOfAll) {
  const std::string last = std::to_string(world().size() - 1);
  for (const BroadcastReplicas way : kWays) {
    const bool common = way != BroadcastReplicas::never && world().size() > 1;
    const auto wanted = targets();
    const ScopedFault fault((common ? "load.replicated:" : "load.move:") + last + ":error,way" +
                            std::to_string(static_cast<int>(way)) + ":0:error");
    const std::string text = expect_same_error(
        Errc::io, [&] { load_tensors(world(), manifest_, wanted, {.broadcast = way}); });
    EXPECT_NE(text.find("partly filled"), std::string::npos) << text;
  }
}

TEST_F(Replicated, DamageIsFoundInMemoryWhicheverWayItCame) {
  flip_byte(path_, manifest_.find("model/big")->offset + 12345);
  for (const BroadcastReplicas way : kWays) {
    const auto wanted = targets();
    const std::string text = expect_same_error(Errc::corrupt, [&] {
      load_tensors(world(), manifest_, wanted, {.verify = VerifyWhen::loaded, .broadcast = way});
    });
    EXPECT_NE(text.find("'model/big'"), std::string::npos) << text;
    EXPECT_NE(text.find("must not be used"), std::string::npos) << text;
  }
}

/// What the system counts for this process, in which nothing else reads much.
std::uint64_t bytes_of_read_calls() {
  std::ifstream in("/proc/self/io");
  std::string word;
  std::uint64_t bytes = 0;
  while (in >> word) {
    if (word == "rchar:") in >> bytes;
  }
  return bytes;
}

/// Loads `piece` of "model/w" and holds what is said of the bytes against what was read.
void expect_little_more_is_read_than(const Manifest& manifest, const Placement& piece) {
  std::vector<float> memory(piece.elements());
  const MutableTensorView target{"model/w", DType::f32, piece,
                                 reinterpret_cast<std::byte*>(memory.data())};
  const std::uint64_t before = bytes_of_read_calls();
  const LoadResult result =
      load_tensors(world(), manifest, {&target, 1},
                   {.verify = VerifyWhen::never, .broadcast = BroadcastReplicas::never});
  const std::uint64_t read = bytes_of_read_calls() - before;
  const std::uint64_t wanted = memory.size() * sizeof(float);
  EXPECT_GE(result.bytes_read, wanted);
  EXPECT_LE(static_cast<double>(result.bytes_read), 1.02 * static_cast<double>(wanted));
  EXPECT_GE(read, result.bytes_read);
  EXPECT_LE(read, result.bytes_read + (64 << 10)) << "files are looked at when they are opened";
  const std::uint64_t columns = piece.global_shape[1];
  const Box& box = piece.box;
  std::size_t at = 0;
  for (std::uint64_t r = box.start[0]; r < box.start[0] + box.count[0]; ++r) {
    for (std::uint64_t c = box.start[1]; c < box.start[1] + box.count[1]; ++c) {
      ASSERT_EQ(memory[at++], static_cast<float>(r * columns + c));
    }
  }
}

TEST(ReadVolume, ColumnsOfWhatLiesInRowsAndTheOtherWayRound) {
  const auto ranks = static_cast<std::uint64_t>(world().size());
  // A rank's part of a row is two pages, so that what is left out of it by one rank more is longer
  // than a sector, which is read as a whole.
  const Shape shape{128, 2048 * ranks};
  for (const std::size_t saved : {0U, 1U}) {
    const Placement mine = Placement::split(shape, saved, world().size(), world().rank());
    std::vector<float> values;
    for (std::uint64_t r = 0; r < mine.box.count[0]; ++r) {
      for (std::uint64_t c = 0; c < mine.box.count[1]; ++c) {
        values.push_back(
            static_cast<float>((mine.box.start[0] + r) * shape[1] + mine.box.start[1] + c));
      }
    }
    StateView state;
    state.tensors.push_back(
        {"model/w", DType::f32, mine, reinterpret_cast<const std::byte*>(values.data())});
    const auto path = scratch() / "step-00000001.h5";
    Saver(world(), {}).save(path, state);
    const Manifest manifest = open_checkpoint(world(), path);
    for (const std::size_t wanted : {0U, 1U}) {
      for (const int parts : {world().size(), world().size() + 1}) {
        expect_little_more_is_read_than(manifest,
                                        Placement::split(shape, wanted, parts, world().rank()));
      }
    }
  }
}

class CheckedInMemory : public testing::TestWithParam<EngineKind> {};

TEST_P(CheckedInMemory, AnyPlacementOntoAnyOther) {
  for (std::size_t c = 0; c < kAllCuts.size(); ++c) {
    const Cut saved = kAllCuts[c];
    const auto path = scratch() / "step-00000001.h5";
    const auto pieces = sample_pieces(saved, world().size(), world().rank());
    Saver(world(), {}).save(path, sample_state(pieces, world().rank(), 1));
    const LoadOptions options{.engine = GetParam(), .verify = VerifyWhen::loaded};
    for (const Cut wanted : kAllCuts) {
      const auto expected = sample_pieces(wanted, world().size(), world().rank());
      auto loaded = expected;
      std::vector<MutableTensorView> targets;
      for (Piece& piece : loaded) {
        std::fill(piece.bytes.begin(), piece.bytes.end(), std::byte{0x5a});
        targets.push_back({piece.name, piece.dtype, piece.placement, piece.bytes.data()});
      }
      load_tensors(world(), open_checkpoint(world(), path), targets, options);
      for (std::size_t i = 0; i < loaded.size(); ++i) {
        ASSERT_TRUE(loaded[i].bytes == expected[i].bytes) << loaded[i].name;
      }
      if (wanted != kAllCuts[(c + 1) % kAllCuts.size()]) continue;  // damage: one other cut each
      for (const char* name : {"model/large", "model/deep"}) {
        const Manifest manifest = open_checkpoint(world(), path);
        for (const Extent& extent : manifest.find(name)->extents) {
          flip_byte(path, extent.offset);
          const std::string text = expect_same_error(
              Errc::corrupt, [&] { load_tensors(world(), manifest, targets, options); });
          EXPECT_NE(text.find(name), std::string::npos) << text;
          flip_byte(path, extent.offset);
        }
      }
    }
  }
}

TEST_P(CheckedInMemory, WhatNobodyGetsWholeIsCheckedBefore) {
  std::vector<std::uint8_t> stored(1000);
  std::iota(stored.begin(), stored.end(), std::uint8_t{0});
  StateView state;
  state.tensors.push_back({"model/w", DType::u8, Placement::replicated({1000}),
                           reinterpret_cast<const std::byte*>(stored.data())});
  const auto path = scratch() / "step-00000001.h5";
  Saver(world(), {}).save(path, state);
  const Manifest manifest = open_checkpoint(world(), path);
  flip_byte(path, manifest.find("model/w")->offset);
  std::vector<std::uint8_t> memory(999, 7);
  const MutableTensorView target{"model/w", DType::u8, Placement::block({1000}, Box{{1}, {999}}),
                                 reinterpret_cast<std::byte*>(memory.data())};
  const std::string text = expect_same_error(Errc::corrupt, [&] {
    load_tensors(world(), manifest, {&target, 1},
                 {.engine = GetParam(), .verify = VerifyWhen::loaded});
  });
  EXPECT_NE(text.find("nothing was loaded"), std::string::npos) << text;
  EXPECT_EQ(memory, std::vector<std::uint8_t>(999, 7));
}

INSTANTIATE_TEST_SUITE_P(Engines, CheckedInMemory,
                         testing::Values(EngineKind::direct, EngineKind::mpio));

}  // namespace
}  // namespace cairn
