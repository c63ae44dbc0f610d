// Archives of more than 4 GiB as cairn lays them out, read back by its own reader. The file is
// sparse: nothing but headers is written.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <span>

#include "base/crc32.hpp"
#include "formats/torch/zip.hpp"
#include "formats/torch/zip_writer.hpp"
#include "os/file.hpp"

namespace cairn::detail::torch {
namespace {

namespace fs = std::filesystem;

TEST(ZipLayout, MembersAndPositionsBeyondFourGibibytesAreFound) {
  constexpr std::uint64_t kLarge = (std::uint64_t{5} << 30) + 3;
  const std::string small = "behind it";
  ZipLayout layout;
  layout.add("model/data.pkl", 100);
  const std::uint64_t large_at = layout.add("model/data/0", kLarge);
  const std::uint64_t small_at = layout.add("model/data/1", small.size());
  ASSERT_GT(small_at, kLarge);
  const std::uint32_t crc = crc32_update(0, std::as_bytes(std::span(small)));

  const fs::path path = fs::temp_directory_path() / ("cairn-zip-" + std::to_string(getpid()));
  File file = File::create(path);
  fs::resize_file(path, layout.file_bytes());
  const std::uint32_t crcs[] = {1, 2, crc};
  for (const ZipLayout::Piece& piece : layout.pieces(crcs)) {
    file.write_at(piece.offset, std::as_bytes(std::span(piece.bytes)), "test");
  }
  file.write_at(small_at, std::as_bytes(std::span(small)), "test");
  file.close();

  const File again = File::open_read(path);
  fs::remove(path);
  const ZipTable table = ZipTable::read(again, 0, again.size());
  ASSERT_EQ(table.members().size(), 3U);
  const ZipMember& large = *table.find("model/data/0");
  EXPECT_EQ(large.bytes, kLarge);
  EXPECT_EQ(large.offset, large_at);
  EXPECT_EQ(large.crc, 2U);
  const ZipMember& last = *table.find("model/data/1");
  EXPECT_EQ(last.offset, small_at);
  const std::vector<std::byte> bytes = table.read_member(again, last, 1 << 10);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), small);
}

}  // namespace
}  // namespace cairn::detail::torch
