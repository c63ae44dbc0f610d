#include "support/sample_state.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <span>

namespace cairn::test {
namespace {

constexpr std::array kAllDTypes{
    DType::f64, DType::f32, DType::f16,     DType::bf16, DType::f8_e4m3fn, DType::f8_e5m2,
    DType::i64, DType::i32, DType::i16,     DType::i8,   DType::u8,        DType::u16,
    DType::u32, DType::u64, DType::boolean, DType::c128, DType::c64,       DType::c32};

std::uint64_t value_of(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t x = seed * 0x9e3779b97f4a7c15ULL + index + 1;
  x ^= x >> 31;
  x *= 0xbf58476d1ce4e5b9ULL;
  return x ^ (x >> 27);
}

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

template <class T>
void append(std::vector<std::byte>& bytes, T value) {
  const auto* raw = reinterpret_cast<const std::byte*>(&value);
  bytes.insert(bytes.end(), raw, raw + sizeof(T));
}

/// A small integer as a binary float of `mantissa_bits` and exponent bias `bias`, sign included.
std::uint32_t small_float(std::int64_t value, unsigned total_bits, unsigned mantissa_bits,
                          unsigned bias) {
  if (value == 0) return 0;
  const auto magnitude = static_cast<std::uint32_t>(value < 0 ? -value : value);
  const auto exponent = static_cast<unsigned>(std::bit_width(magnitude)) - 1;
  const std::uint32_t fraction = (magnitude ^ (1U << exponent)) << (mantissa_bits - exponent);
  return (value < 0 ? 1U << (total_bits - 1) : 0) | ((exponent + bias) << mantissa_bits) | fraction;
}

void append_count(std::vector<std::byte>& bytes, DType dtype, std::int64_t value) {
  switch (dtype) {
    case DType::f64:
      return append(bytes, static_cast<double>(value));
    case DType::f32:
      return append(bytes, static_cast<float>(value));
    case DType::f16:
      return append(bytes, static_cast<std::uint16_t>(small_float(value, 16, 10, 15)));
    case DType::bf16:
      return append(bytes, static_cast<std::uint16_t>(small_float(value, 16, 7, 127)));
    case DType::f8_e4m3fn:
      return append(bytes, static_cast<std::uint8_t>(small_float(value, 8, 3, 7)));
    case DType::f8_e5m2:
      return append(bytes, static_cast<std::uint8_t>(small_float(value, 8, 2, 15)));
    case DType::i64:
    case DType::u64:
      return append(bytes, value);
    case DType::i32:
    case DType::u32:
      return append(bytes, static_cast<std::int32_t>(value));
    case DType::i16:
    case DType::u16:
      return append(bytes, static_cast<std::int16_t>(value));
    case DType::i8:
    case DType::u8:
      return append(bytes, static_cast<std::int8_t>(value));
    case DType::boolean:
      return append(bytes, static_cast<std::int8_t>(value & 1));
    case DType::c128:
      append_count(bytes, DType::f64, value);
      return append_count(bytes, DType::f64, -value);
    case DType::c64:
      append_count(bytes, DType::f32, value);
      return append_count(bytes, DType::f32, -value);
    case DType::c32:
      append_count(bytes, DType::f16, value);
      return append_count(bytes, DType::f16, -value);
  }
}

std::vector<std::byte> counting_bytes(DType dtype, const Placement& placement) {
  std::vector<std::byte> bytes;
  for (const std::uint64_t element : elements_of(placement)) {
    append_count(bytes, dtype, static_cast<std::int64_t>(element));
  }
  return bytes;
}

std::vector<std::byte> random_bytes(DType dtype, const Placement& placement, std::uint64_t seed) {
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

Placement place_grid(const Shape& shape, int parts, int index) {
  // Rows in halves, columns among the ranks of a half; an odd last rank shares the last column.
  if (parts < 2) return Placement::replicated(shape);
  const int columns = parts / 2;
  Placement row = Placement::split(shape, 0, 2, index % 2);
  const Range column = balanced_range(shape.back(), columns, std::min(index / 2, columns - 1));
  row.box.start.back() = column.start;
  row.box.count.back() = column.count;
  return row;
}

Placement place(Cut cut, const Shape& shape, int parts, int index) {
  switch (cut) {
    case Cut::replicated:
      return Placement::replicated(shape);
    case Cut::rows:
      return Placement::split(shape, 0, parts, index);
    case Cut::columns:
      return Placement::split(shape, shape.size() - 1, parts, index);
    case Cut::grid:
      return place_grid(shape, parts, index);
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

constexpr std::array<std::string_view, kAllCuts.size()> kCutNames{
    "replicated", "rows", "columns", "grid", "flat", "uneven", "one_rank"};

}  // namespace

std::string_view to_string(Cut cut) { return kCutNames[static_cast<std::size_t>(cut)]; }

Cut cut_from_string(std::string_view name) {
  for (const Cut cut : kAllCuts) {
    if (to_string(cut) == name) return cut;
  }
  throw Error(Errc::usage, "unknown cut");
}

std::vector<Piece> sample_pieces(Cut cut, int parts, int index, std::uint64_t version) {
  std::vector<Piece> pieces;
  std::uint64_t seed = version * 1000;
  const auto add = [&](const std::string& name, DType dtype, const Shape& shape, Cut how) {
    Piece piece{name, dtype, place(how, shape, parts, index), {}};
    piece.bytes = random_bytes(dtype, piece.placement, seed += 16);
    pieces.push_back(std::move(piece));
  };
  for (const DType dtype : kAllDTypes) {
    add("model/all." + std::string(cairn::to_string(dtype)), dtype, {7, 5}, cut);
    Piece counting{"model/counting." + std::string(cairn::to_string(dtype)),
                   dtype,
                   place(cut, {4, 2}, parts, index),
                   {}};
    counting.bytes = counting_bytes(dtype, counting.placement);
    pieces.push_back(std::move(counting));
  }
  add("model/scalar", DType::f32, {}, Cut::replicated);
  add("model/empty", DType::f32, {0, 3}, Cut::replicated);
  add("model/deep", DType::i32, {4, 6, 10}, cut);
  add("model/large", DType::f32, {256, 1152}, cut);  // columns: chunks above 64 KiB at 1 to 8 ranks
  add("optimizer/deep.weight/exp_avg", DType::f32, {3, 4, 16}, cut);
  return pieces;
}

StateView sample_state(const std::vector<Piece>& pieces, int rank, std::uint64_t step) {
  StateView state;
  for (const Piece& piece : pieces) {
    state.tensors.push_back({piece.name, piece.dtype, piece.placement, piece.bytes.data()});
  }
  state.documents["context"] = R"({"epoch": 3})";
  const std::string blob =
      "rank " + std::to_string(rank) + std::string(static_cast<std::size_t>(rank), '!');
  const auto raw = std::as_bytes(std::span(blob));
  state.rank_blobs["rng"].assign(raw.begin(), raw.end());
  state.step = step;
  return state;
}

std::vector<std::string> wrong_pieces(const Comm& comm, const std::filesystem::path& path,
                                      const std::vector<Piece>& wanted,
                                      const LoadOptions& options) {
  const Manifest manifest = open_checkpoint(comm, path);
  std::vector<std::vector<std::byte>> memory(wanted.size());
  std::vector<MutableTensorView> targets;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    memory[i].assign(wanted[i].bytes.size(), std::byte{0xee});
    targets.push_back({wanted[i].name, wanted[i].dtype, wanted[i].placement, memory[i].data()});
  }
  load_tensors(comm, manifest, targets, options);
  std::vector<std::string> wrong;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (memory[i] != wanted[i].bytes) wrong.push_back(wanted[i].name);
  }
  return wrong;
}

}  // namespace cairn::test
