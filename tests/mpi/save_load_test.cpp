#include <cmath>
#include <cstring>
#include <numeric>

#include "cairn/checkpoint.hpp"
#include "support/mpi_test.hpp"

namespace cairn {
namespace {

using test::expect_same_error;
using test::scratch;
using test::ScopedFault;
using test::world;

/// The bytes that element `index` of tensor `seed` has, whoever holds it.
std::uint64_t value_of(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t x = seed * 0x9e3779b97f4a7c15ULL + index + 1;
  x ^= x >> 31;
  x *= 0xbf58476d1ce4e5b9ULL;
  return x ^ (x >> 27);
}

/// One piece with its memory, filled from the global element indices.
struct Piece {
  std::string name;
  DType dtype;
  Placement placement;
  std::uint64_t seed;
  std::vector<std::byte> bytes;
};

/// Global (row-major) indices of a piece's elements, in the order of its bytes.
std::vector<std::uint64_t> elements_of(const Placement& placement) {
  std::vector<std::uint64_t> all;
  if (placement.elements() == 0) return all;
  if (placement.kind == Placement::Kind::flat) {
    all.resize(placement.elements());
    std::iota(all.begin(), all.end(), placement.box.start[0]);
    return all;
  }
  const Shape& shape = placement.global_shape;
  Shape index = placement.box.start;
  for (;;) {
    std::uint64_t linear = 0;
    for (std::size_t d = 0; d < shape.size(); ++d) linear = linear * shape[d] + index[d];
    all.push_back(linear);
    std::size_t d = shape.size();
    while (d > 0 && ++index[d - 1] == placement.box.start[d - 1] + placement.box.count[d - 1]) {
      index[d - 1] = placement.box.start[d - 1];
      --d;
    }
    if (d == 0) return all;
  }
}

std::vector<std::byte> expected_bytes(DType dtype, const Placement& placement, std::uint64_t seed) {
  const std::size_t item = item_bytes(dtype);
  std::vector<std::byte> bytes;
  for (const std::uint64_t element : elements_of(placement)) {
    for (std::size_t at = 0; at < item; at += 8) {
      std::uint64_t value = value_of(seed + at, element);
      if (dtype == DType::boolean) value &= 1;
      const auto* raw = reinterpret_cast<const std::byte*>(&value);
      bytes.insert(bytes.end(), raw, raw + std::min<std::size_t>(8, item - at));
    }
  }
  return bytes;
}

/// How the test's tensors are cut.
enum class Cut { replicated, rows, columns, grid, flat, uneven, one_rank };

Placement place(Cut cut, const Shape& shape, int parts, int index) {
  switch (cut) {
    case Cut::replicated:
      return Placement::replicated(shape);
    case Cut::rows:
      return Placement::split(shape, 0, parts, index);
    case Cut::columns:
      return Placement::split(shape, shape.size() - 1, parts, index);
    case Cut::grid: {
      // Rows in halves, columns among the ranks of a half; an odd last rank shares the last column.
      if (parts < 2) return Placement::replicated(shape);
      const int half = index % 2;
      const int columns = parts / 2;
      Placement row = Placement::split(shape, 0, 2, half);
      const Range column =
          balanced_range(shape.back(), columns, std::min(index / 2, columns - 1));
      row.box.start.back() = column.start;
      row.box.count.back() = column.count;
      return row;
    }
    case Cut::flat:
      return Placement::flat_split(shape, parts, index);
    case Cut::uneven: {
      // The first rank has all but one row; the last has that row; the others have nothing.
      const std::uint64_t rows = shape[0];
      Box box = Box::whole(shape);
      if (parts > 1) {
        box.start[0] = index == 0 ? 0 : rows - 1;
        box.count[0] = index == 0 ? rows - 1 : index == parts - 1 ? 1 : 0;
      }
      return Placement::block(shape, box);
    }
    case Cut::one_rank: {
      Box box = Box::whole(shape);
      if (index != parts - 1) box.count[0] = 0;
      return Placement::block(shape, box);
    }
  }
  return Placement::replicated(shape);
}

constexpr DType kAllDTypes[] = {
    DType::f64, DType::f32, DType::f16, DType::bf16,    DType::f8_e4m3fn, DType::f8_e5m2,
    DType::i64, DType::i32, DType::i16, DType::i8,      DType::u8,        DType::u16,
    DType::u32, DType::u64, DType::boolean, DType::c128, DType::c64,      DType::c32};
constexpr Cut kAllCuts[] = {Cut::replicated, Cut::rows, Cut::columns, Cut::grid,
                            Cut::flat,       Cut::uneven, Cut::one_rank};

/// A state with every dtype and shapes from 0-d to 3-d, cut in one way.
std::vector<Piece> make_pieces(Cut cut, int parts, int index) {
  std::vector<Piece> pieces;
  std::uint64_t seed = 1;
  const auto add = [&](const std::string& name, DType dtype, const Shape& shape, Cut how) {
    Piece piece{name, dtype, place(how, shape, parts, index), seed += 16, {}};
    piece.bytes = expected_bytes(dtype, piece.placement, piece.seed);
    pieces.push_back(std::move(piece));
  };
  for (const DType dtype : kAllDTypes) {
    add("model/all." + std::string(to_string(dtype)), dtype, {7, 5}, cut);
  }
  add("model/scalar", DType::f32, {}, Cut::replicated);
  add("model/empty", DType::f32, {0, 3}, Cut::replicated);
  add("model/deep", DType::i32, {4, 6, 10}, cut);
  add("model/large", DType::f32, {256, 1152}, cut);  // columns: chunks above 64 KiB at 1 to 8 ranks
  add("optimizer/deep.weight/exp_avg", DType::f32, {3, 4, 16}, cut);
  return pieces;
}

StateView view_of(const std::vector<Piece>& pieces, std::uint64_t step) {
  StateView state;
  for (const Piece& piece : pieces) {
    state.tensors.push_back({piece.name, piece.dtype, piece.placement, piece.bytes.data()});
  }
  state.documents["context"] = R"({"epoch": 3})";
  const std::string blob = "rank " + std::to_string(world().rank()) +
                           std::string(static_cast<std::size_t>(world().rank()), '!');
  const auto raw = std::as_bytes(std::span(blob));
  state.rank_blobs["rng"].assign(raw.begin(), raw.end());
  state.step = step;
  return state;
}

void expect_loads(const std::filesystem::path& path, Cut cut, const LoadOptions& options) {
  const Manifest manifest = open_checkpoint(world(), path);
  std::vector<Piece> wanted = make_pieces(cut, world().size(), world().rank());
  std::vector<std::vector<std::byte>> memory(wanted.size());
  std::vector<MutableTensorView> targets;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    memory[i].assign(wanted[i].bytes.size(), std::byte{0xee});
    targets.push_back({wanted[i].name, wanted[i].dtype, wanted[i].placement, memory[i].data()});
  }
  load_tensors(world(), manifest, targets, options);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_TRUE(memory[i] == wanted[i].bytes) << wanted[i].name;
  }
}

struct Mode {
  EngineKind engine;
  Transfer transfer;
};

class EveryEngine : public testing::TestWithParam<Mode> {
 protected:
  SaveOptions save_options() const {
    SaveOptions options;
    options.engine = GetParam().engine;
    options.transfer = GetParam().transfer;
    return options;
  }
  LoadOptions load_options() const {
    LoadOptions options;
    options.engine = GetParam().engine;
    options.transfer = GetParam().transfer;
    return options;
  }
};

TEST_P(EveryEngine, EveryCutLoadsBackUnderEveryOther) {
  const auto dir = scratch();
  std::uint64_t step = 0;
  for (const Cut cut : kAllCuts) {
    Saver saver(world(), save_options());
    const auto path = checkpoint_path(dir, ++step);
    const auto pieces = make_pieces(cut, world().size(), world().rank());
    saver.save(path, view_of(pieces, step));
    for (const Cut other : kAllCuts) expect_loads(path, other, load_options());
    const Manifest manifest = open_checkpoint(world(), path);
    EXPECT_TRUE(verify_tensors(world(), manifest).defects.empty());
    EXPECT_EQ(manifest.commit.step, step);
    EXPECT_EQ(manifest.documents.at("context"), R"({"epoch": 3})");
    EXPECT_TRUE(manifest.warnings.empty());
  }
}

TEST_P(EveryEngine, LaterSavesCarryTheNewValues) {
  const auto dir = scratch();
  Saver saver(world(), save_options());
  auto pieces = make_pieces(Cut::rows, world().size(), world().rank());
  saver.save(checkpoint_path(dir, 1), view_of(pieces, 1));
  for (Piece& piece : pieces) {
    piece.bytes = expected_bytes(piece.dtype, piece.placement, piece.seed + 7);
  }
  saver.save(checkpoint_path(dir, 2), view_of(pieces, 2));
  const Manifest manifest = open_checkpoint(world(), checkpoint_path(dir, 2));
  for (const Piece& piece : pieces) {
    std::vector<std::byte> memory(piece.bytes.size());
    const MutableTensorView target{piece.name, piece.dtype, piece.placement, memory.data()};
    load_tensors(world(), manifest, {&target, 1}, load_options());
    EXPECT_TRUE(memory == piece.bytes) << piece.name;
  }
  expect_loads(checkpoint_path(dir, 1), Cut::flat, load_options());
}

TEST_P(EveryEngine, AnErrorOnOneRankIsTheSameOnAllAndLeavesNothing) {
  const auto dir = scratch();
  Saver saver(world(), save_options());
  const auto pieces = make_pieces(Cut::rows, world().size(), world().rank());
  saver.save(checkpoint_path(dir, 1), view_of(pieces, 1));
  const int last = world().size() - 1;
  for (const std::string point : {"agree", "preflight", "move", "move.end", "durable", "commit"}) {
    const ScopedFault fault(point + ":" + std::to_string(last) + ":error");
    const std::string text = expect_same_error(
        Errc::io, [&] { saver.save(checkpoint_path(dir, 2), view_of(pieces, 2)); });
    EXPECT_NE(text.find("rank " + std::to_string(last)), std::string::npos) << text;
    EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 1));
    EXPECT_FALSE(std::filesystem::exists(dir / ".step-00000002.h5.partial"));
  }
  saver.save(checkpoint_path(dir, 2), view_of(pieces, 2));
  EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 2));
  EXPECT_EQ(std::filesystem::read_symlink(dir / "last"), "step-00000002.h5");
}

std::string name_of(const testing::TestParamInfo<Mode>& mode) {
  if (mode.param.engine == EngineKind::direct) return "direct";
  return mode.param.transfer == Transfer::collective ? "mpio_collective" : "mpio_independent";
}

INSTANTIATE_TEST_SUITE_P(Engines, EveryEngine,
                         testing::Values(Mode{EngineKind::direct, Transfer::collective},
                                         Mode{EngineKind::mpio, Transfer::collective},
                                         Mode{EngineKind::mpio, Transfer::independent}),
                         name_of);

}  // namespace
}  // namespace cairn
