#include "plan/chunks.hpp"

#include <gtest/gtest.h>

#include <random>

#include "base/inflate.hpp"
#include "cairn/error.hpp"

namespace cairn::detail {
namespace {

TensorEntry tensor_of(const Shape& shape, std::vector<Box> boxes, DType dtype = DType::f32) {
  TensorEntry tensor;
  tensor.name = "t";
  tensor.dtype = dtype;
  tensor.shape = shape;
  tensor.placement = boxes.size() == 1 ? Placement::Kind::replicated : Placement::Kind::block;
  for (Box& box : boxes) tensor.extents.emplace_back().box = std::move(box);
  return tensor;
}

TEST(Chunks, AreOfAboutAMebibyteAndInsideOfWhatARankHolds) {
  TensorEntry rows = tensor_of({4096, 1024}, {Box::whole({4096, 1024})});
  choose_filters(rows, true);
  EXPECT_EQ(rows.layout, Layout::chunked);
  EXPECT_EQ(rows.chunk, (Shape{256, 1024}));
  EXPECT_EQ(rows.filters, kShuffled | kDeflated);
  EXPECT_EQ(chunk_count(rows), 16U);

  TensorEntry columns =
      tensor_of({4096, 1024}, {{{0, 0}, {4096, 512}}, {{0, 512}, {4096, 512}}}, DType::u8);
  choose_filters(columns, true);
  EXPECT_EQ(columns.chunk, (Shape{2048, 512}));
  EXPECT_EQ(columns.filters, kDeflated) << "single bytes have nothing to shuffle";

  TensorEntry wide = tensor_of({3, 1 << 20}, {Box::whole({3, 1 << 20})});
  choose_filters(wide, false);
  EXPECT_EQ(wide.chunk, (Shape{1, 1 << 18}));

  TensorEntry huge = tensor_of({1 << 20, 1 << 10}, {Box::whole({1 << 20, 1 << 10})});
  choose_filters(huge, false);
  EXPECT_EQ(chunk_count(huge), 1024U) << "4 GiB, of which HDF5 should find each chunk soon";
}

TEST(Chunks, SmallTensorsStayAsTheyAre) {
  for (TensorEntry tensor : {tensor_of({100, 100}, {Box::whole({100, 100})}), tensor_of({}, {{}}),
                             tensor_of({0, 1 << 20}, {Box::whole({0, 1 << 20})})}) {
    choose_filters(tensor, true);
    EXPECT_EQ(tensor.filters, 0);
    EXPECT_EQ(tensor.layout, Layout::contiguous);
  }
}

TEST(Chunks, EveryElementIsInTheChunksThatAreVisited) {
  TensorEntry tensor = tensor_of({7, 5}, {Box::whole({7, 5})});
  tensor.chunk = {3, 2};
  EXPECT_EQ(chunk_count(tensor), 9U);
  std::vector<std::uint64_t> seen;
  for_each_chunk(tensor, {{2, 1}, {2, 4}}, [&](std::uint64_t position, const Box& chunk) {
    seen.push_back(position);
    EXPECT_EQ(chunk.count, tensor.chunk);
    EXPECT_EQ(chunk.start, (Shape{position / 3 * 3, position % 3 * 2}));
  });
  EXPECT_EQ(seen, (std::vector<std::uint64_t>{0, 1, 2, 3, 4, 5}));
  for_each_chunk(tensor, {{2, 1}, {0, 4}}, [](std::uint64_t, const Box&) { FAIL(); });
}

TEST(Chunks, SlicesEndBetweenChunksAndMakeUpTheBox) {
  const Box box{{5, 0}, {20, 8}};
  std::uint64_t at = 5;
  for (const Box& slice : slices_on_grid(box, {4, 8}, 2 * 4 * 8)) {
    EXPECT_EQ(slice.start[0], at);
    at += slice.count[0];
    EXPECT_TRUE(at == 25 || at % 4 == 0);
    EXPECT_LE(slice.count[0], 8U);
  }
  EXPECT_EQ(at, 25U);
  EXPECT_TRUE(slices_on_grid({{0}, {0}}, {4}, 8).empty());
}

TEST(Chunks, ImpossibleOnesAreRefused) {
  TensorEntry tensor = tensor_of({7, 5}, {Box::whole({7, 5})});
  for (const Shape& chunk : {Shape{}, Shape{0, 5}, Shape{1 << 20, 1 << 20}}) {
    tensor.chunk = chunk;
    EXPECT_THROW(chunk_count(tensor), Error);
  }
}

TEST(Inflate, UndoesWhatZlibMade) {
  // zlib.compress(b"abcabcabcabc" * 4)
  constexpr unsigned char kDeflated[] = {0x78, 0x9c, 0x4b, 0x4c, 0x4a, 0x4e, 0x24,
                                         0x05, 0x01, 0x00, 0xc2, 0x4f, 0x12, 0x61};
  const auto in = std::as_bytes(std::span(kDeflated));
  std::string out(48, '?');
  const auto to = std::as_writable_bytes(std::span(out));
  Inflater inflater;
  inflater.inflate(in, to);
  EXPECT_EQ(out.substr(0, 6), "abcabc");
  EXPECT_EQ(out.substr(42), "abcabc");
  EXPECT_THROW(inflater.inflate(in, to.first(47)), Error) << "too long";
  EXPECT_THROW(inflater.inflate(in.first(in.size() - 6), to), Error) << "cut";
  std::vector<std::byte> damaged(in.begin(), in.end());
  damaged.back() ^= std::byte{1};
  EXPECT_THROW(inflater.inflate(damaged, to), Error) << "its checksum";
  inflater.inflate(in, to);  // and again after failures
}

TEST(Inflate, UnshufflesElements) {
  const std::string in = "AaBb";  // first bytes "Aa" of both elements, then "Bb"
  std::string out(4, '?');
  unshuffle(std::as_bytes(std::span(in)), 2, std::as_writable_bytes(std::span(out)));
  EXPECT_EQ(out, "ABab");
}

}  // namespace
}  // namespace cairn::detail
