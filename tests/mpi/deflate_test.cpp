// Containers with compressed tensors: they are read by everything, and damage in them is found.
#include <fstream>

#include "cairn/checkpoint.hpp"
#include "support/mpi_test.hpp"
#include "support/sample_state.hpp"

namespace cairn {
namespace {

using namespace test;

SaveOptions deflating(bool shuffle = true) {
  SaveOptions options;
  options.engine = EngineKind::mpio;
  options.durable = false;
  options.mpio.deflate = 4;
  options.mpio.shuffle = shuffle;
  return options;
}

std::vector<LoadOptions> every_load() {
  LoadOptions direct;
  LoadOptions collective;
  collective.engine = EngineKind::mpio;
  LoadOptions independent = collective;
  independent.transfer = Transfer::independent;
  return {direct, collective, independent};
}

/// Smooth values, which become small; 3 MiB, in rows of 4000 bytes, 786 of them.
class Smooth : public testing::Test {
 protected:
  static constexpr std::uint64_t kRows = 786;
  static constexpr std::uint64_t kColumns = 1000;

  void SetUp() override { path_ = checkpoint_path(scratch(), 1); }

  static float value(std::uint64_t element) { return static_cast<float>(element / 10) * 0.5F; }

  TensorView piece(Cut cut) {
    const Shape shape{kRows, kColumns};
    TensorView view{"model/smooth", DType::f32, {}, nullptr};
    const int ranks = world().size();
    view.placement = cut == Cut::rows      ? Placement::split(shape, 0, ranks, world().rank())
                     : cut == Cut::columns ? Placement::split(shape, 1, ranks, world().rank())
                     : cut == Cut::flat    ? Placement::flat_split(shape, ranks, world().rank())
                                           : Placement::replicated(shape);
    return view;
  }

  std::vector<float> values_of(const Placement& placement) {
    std::vector<float> values;
    const Box& box = placement.box;
    if (placement.kind == Placement::Kind::flat) {
      for (std::uint64_t i = 0; i < box.count[0]; ++i) values.push_back(value(box.start[0] + i));
      return values;
    }
    const Box whole =
        placement.kind == Placement::Kind::replicated ? Box::whole(placement.global_shape) : box;
    for (std::uint64_t r = 0; r < whole.count[0]; ++r) {
      for (std::uint64_t c = 0; c < whole.count[1]; ++c) {
        values.push_back(value((whole.start[0] + r) * kColumns + whole.start[1] + c));
      }
    }
    return values;
  }

  void save(Cut cut, const SaveOptions& options) {
    TensorView view = piece(cut);
    const std::vector<float> values = values_of(view.placement);
    view.data = reinterpret_cast<const std::byte*>(values.data());
    StateView state;
    state.tensors = {view};
    state.step = 1;
    Saver(world(), options).save(path_, state);
  }

  void expect_loads(Cut cut, const LoadOptions& options) {
    const TensorView view = piece(cut);
    std::vector<float> values(view.placement.elements(), -1);
    const MutableTensorView target{view.name, view.dtype, view.placement,
                                   reinterpret_cast<std::byte*>(values.data())};
    load_tensors(world(), open_checkpoint(world(), path_), {&target, 1}, options);
    EXPECT_TRUE(values == values_of(view.placement)) << to_string(cut);
  }

  std::filesystem::path path_;
};

TEST_F(Smooth, BecomesSmallAndLoadsUnderEveryCutByEveryEngine) {
  SaveOptions plain = deflating();
  plain.mpio.deflate = 0;
  save(Cut::rows, plain);
  const auto digest = open_checkpoint(world(), path_).tensors.at(0).content_digest();
  const std::uint64_t large = std::filesystem::file_size(path_);
  for (const bool shuffle : {true, false}) {
    for (const Cut cut : {Cut::replicated, Cut::rows, Cut::columns, Cut::flat}) {
      save(cut, deflating(shuffle));
      EXPECT_LT(std::filesystem::file_size(path_), large / 4) << to_string(cut);
      const Manifest manifest = open_checkpoint(world(), path_);
      EXPECT_EQ(manifest.tensors.at(0).content_digest(), digest);
      const VerifyReport report = verify_tensors(world(), manifest);
      EXPECT_TRUE(report.defects.empty());
      EXPECT_EQ(report.bytes, kRows * kColumns * 4);
      for (const Cut other : {Cut::replicated, Cut::rows, Cut::columns, Cut::flat}) {
        for (const LoadOptions& options : every_load()) expect_loads(other, options);
      }
    }
  }
}

TEST_F(Smooth, IsConvertedAndReadInParts) {
  save(Cut::rows, deflating());
  const Manifest manifest = open_checkpoint(world(), path_);
  Placement part = Placement::block({kRows, kColumns}, Box{{700, 990}, {86, 10}});
  std::vector<double> values(part.elements());
  const MutableTensorView target{"model/smooth", DType::f64, part,
                                 reinterpret_cast<std::byte*>(values.data())};
  for (LoadOptions options : every_load()) {
    options.cast = true;
    std::fill(values.begin(), values.end(), -1);
    load_tensors(world(), manifest, {&target, 1}, options);
    const std::vector<float> wanted = values_of(part);
    EXPECT_TRUE(std::equal(values.begin(), values.end(), wanted.begin(), wanted.end()));
  }
}

TEST_F(Smooth, DamageInAChunkIsFoundBeforeAnythingChanges) {
  save(Cut::rows, deflating());
  const Manifest manifest = open_checkpoint(world(), path_);
  const auto chunks = manifest.tensors.at(0).stored;
  ASSERT_GE(chunks.size(), 3U);
  for (const std::uint32_t at : {0U, 2U, chunks[1].bytes / 2, chunks[1].bytes - 1}) {
    const auto place = static_cast<std::streamoff>(chunks[1].offset + at);
    const auto flip = [&] {
      if (!world().is_root()) return;
      std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
      file.seekg(place);
      const char byte = static_cast<char>(file.get() ^ 0x10);
      file.seekp(place);
      file.put(byte);
    };
    flip();
    world().all_equal(0);
    const Manifest damaged = open_checkpoint(world(), path_);
    const TensorView view = piece(Cut::rows);
    std::vector<float> values(view.placement.elements(), -1);
    const MutableTensorView target{view.name, view.dtype, view.placement,
                                   reinterpret_cast<std::byte*>(values.data())};
    for (const LoadOptions& options : every_load()) {
      const std::string text = expect_same_error(Errc::corrupt, [&] {
        load_tensors(world(), damaged, {&target, 1}, options);
      });
      EXPECT_NE(text.find("model/smooth"), std::string::npos) << text;
    }
    EXPECT_TRUE(std::all_of(values.begin(), values.end(), [](float v) { return v == -1; }));
    EXPECT_FALSE(verify_tensors(world(), damaged).defects.empty());
    world().all_equal(0);
    flip();
    world().all_equal(0);
  }
  expect_loads(Cut::flat, {});
}

TEST_F(Smooth, StatisticsAreThoseOfTheValues) {
  SaveOptions options = deflating();
  options.statistics = true;
  save(Cut::columns, options);
  const auto statistics = open_checkpoint(world(), path_).tensors.at(0).statistics;
  ASSERT_TRUE(statistics.has_value());
  EXPECT_EQ(statistics->min, 0);
  EXPECT_EQ(statistics->max, value(kRows * kColumns - 1));
}

TEST_F(Smooth, WrongLevelsAndTheOtherEngineAreRefused) {
  SaveOptions options = deflating();
  options.mpio.deflate = 10;
  expect_same_error(Errc::usage, [&] { save(Cut::rows, options); });
  options = deflating();
  options.engine = EngineKind::direct;
  expect_same_error(Errc::usage, [&] { save(Cut::rows, options); });
}

TEST(Deflate, LaterSavesOfOneStructureHoldTheirOwnValues) {
  const auto dir = scratch();
  Saver saver(world(), deflating());
  for (const std::uint64_t version : {1, 2, 3}) {
    const auto pieces = sample_pieces(Cut::grid, world().size(), world().rank(), version);
    saver.save(checkpoint_path(dir, version), sample_state(pieces, world().rank(), version));
  }
  for (const std::uint64_t version : {3, 2, 1}) {
    const Manifest manifest = open_checkpoint(world(), checkpoint_path(dir, version));
    EXPECT_TRUE(verify_tensors(world(), manifest).defects.empty());
    const auto wanted = sample_pieces(Cut::columns, world().size(), world().rank(), version);
    for (const LoadOptions& options : every_load()) {
      std::vector<std::vector<std::byte>> memory;
      std::vector<MutableTensorView> targets;
      for (const Piece& piece : wanted) {
        auto& bytes = memory.emplace_back(piece.bytes.size());
        targets.push_back({piece.name, piece.dtype, piece.placement, bytes.data()});
      }
      load_tensors(world(), manifest, targets, options);
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        EXPECT_TRUE(memory[i] == wanted[i].bytes) << wanted[i].name;
      }
    }
  }
}

// A rank's piece moves in transfers of 64 MiB: a chunk at the border of two ranks is written by one
// in an early transfer and by the other in a late one.
TEST(Deflate, ChunksThatSeveralTransfersWriteAreWhole) {
  const auto path = checkpoint_path(scratch(), 1);
  const Shape shape{35'000, 4096};
  const auto value = [](std::uint64_t row) { return static_cast<std::byte>(row / 7 % 251); };
  const auto piece_of = [&](int ranks, int rank) {
    const Placement piece = Placement::split(shape, 0, ranks, rank);
    std::vector<std::byte> bytes;
    for (std::uint64_t r = 0; r < piece.box.count[0]; ++r) {
      bytes.insert(bytes.end(), shape[1], value(piece.box.start[0] + r));
    }
    return std::pair(piece, bytes);
  };
  {
    const auto [piece, bytes] = piece_of(world().size(), world().rank());
    StateView state;
    state.step = 1;
    state.tensors = {{"model/rows", DType::u8, piece, bytes.data()}};
    SaveOptions options = deflating();
    options.mpio.deflate = 1;
    Saver(world(), options).save(path, state);
  }
  const Manifest manifest = open_checkpoint(world(), path);
  EXPECT_TRUE(verify_tensors(world(), manifest).defects.empty());
  const auto [piece, wanted] = piece_of(world().size(), world().size() - 1 - world().rank());
  std::vector<std::byte> bytes(wanted.size());
  const MutableTensorView target{"model/rows", DType::u8, piece, bytes.data()};
  load_tensors(world(), manifest, {&target, 1}, {});
  EXPECT_TRUE(bytes == wanted);
}

}  // namespace
}  // namespace cairn
