#include "transfer/stored_chunks.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <string>

#include "os/file.hpp"
#include "plan/chunks.hpp"

namespace cairn::detail {
namespace {

constexpr std::uint64_t kChunkBytes = 64;

/// 4 x 4 chunks of 64 bytes, each of them its position; no filter was applied to any.
TensorEntry tensor_in_chunks() {
  TensorEntry tensor;
  tensor.name = "t";
  tensor.dtype = DType::u8;
  tensor.shape = {32, 32};
  tensor.layout = Layout::chunked;
  tensor.chunk = {8, 8};
  tensor.filters = kDeflated;
  for (std::uint64_t c = 0; c < 16; ++c) tensor.stored.push_back({c * kChunkBytes, kChunkBytes, 1});
  return tensor;
}

class Stored : public testing::Test {
 protected:
  Stored() : file_(File::create(path_)) {
    for (std::uint64_t c = 0; c < 16; ++c) {
      std::array<std::byte, kChunkBytes> bytes{};
      bytes.fill(static_cast<std::byte>(c));
      file_.write_at(c * kChunkBytes, bytes, "test");
    }
  }
  ~Stored() override { remove_quietly(path_); }

  /// Goes through the rows one by one, as windows over all columns do.
  std::uint64_t reads_of_rows(std::uint64_t kept_bytes) {
    const TensorEntry tensor = tensor_in_chunks();
    StoredChunks chunks(kept_bytes);
    for (std::uint64_t row = 0; row < 32; ++row) {
      for_each_chunk(tensor, Box{{row, 0}, {1, 32}}, [&](std::uint64_t position, const Box&) {
        const auto& bytes = chunks.read(file_, 0, tensor, position);
        EXPECT_EQ(bytes, std::vector<std::byte>(kChunkBytes, static_cast<std::byte>(position)));
      });
    }
    return chunks.reads();
  }

  std::filesystem::path path_ = testing::TempDir() + "stored_chunks_" + std::to_string(getpid());
  File file_;
};

TEST_F(Stored, AWindowOverAllColumnsUndoesEachChunkOnce) {
  EXPECT_EQ(reads_of_rows(4 * kChunkBytes), 16U);
  EXPECT_EQ(reads_of_rows(StoredChunks::kKeptBytes), 16U);
}

TEST_F(Stored, NoMoreIsKeptThanWasAllowed) {
  EXPECT_EQ(reads_of_rows(4 * kChunkBytes - 1), 32U * 4);
  EXPECT_EQ(reads_of_rows(0), 32U * 4);
}

TEST_F(Stored, ChunksOfOtherFilesAreOthers) {
  const TensorEntry tensor = tensor_in_chunks();
  StoredChunks chunks;
  chunks.read(file_, 0, tensor, 3);
  chunks.read(file_, 1, tensor, 3);
  chunks.read(file_, 0, tensor, 3);
  EXPECT_EQ(chunks.reads(), 2U);
}

}  // namespace
}  // namespace cairn::detail
