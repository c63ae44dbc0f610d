#include <algorithm>
#include <fstream>
#include <random>
#include <span>

#include "base/digest.hpp"
#include "cairn/checkpoint.hpp"
#include "formats/hdf5/commit.hpp"
#include "support/mpi_test.hpp"
#include "support/sample_state.hpp"

namespace cairn {
namespace {

using namespace test;

/// Whether opening or verifying notices; throws nothing but what it should.
bool is_noticed(const std::filesystem::path& path) {
  try {
    return !verify_tensors(world(), open_checkpoint(world(), path)).defects.empty();
  } catch (const Error& error) {
    EXPECT_TRUE(error.code() == Errc::corrupt || error.code() == Errc::unsupported ||
                error.code() == Errc::mismatch)
        << to_string(error.code()) << " " << error.what();
    EXPECT_NE(std::string(error.what()).find(path.string()), std::string::npos) << error.what();
    return true;
  }
}

class Damage : public testing::Test {
 protected:
  void SetUp() override {
    path_ = scratch() / "step-00000001.h5";
    const auto pieces = sample_pieces(Cut::columns, world().size(), world().rank());
    Saver(world(), {}).save(path_, sample_state(pieces, world().rank(), 1));
    std::ifstream file(path_, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    // Everybody has read it before anybody damages it.
    agree(world(), "read", [] {});
  }

  void write(const std::string& bytes) const {
    agree(world(), "write", [&] {
      if (world().is_root()) std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
    });
  }
  void write_byte(std::size_t at, char value) const {
    agree(world(), "write", [&] {
      if (!world().is_root()) return;
      std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
      file.seekp(static_cast<std::streamoff>(at));
      file.put(value);
    });
  }

  std::filesystem::path path_;
  std::string bytes_;
};

TEST_F(Damage, NoFlippedBitIsSilent) {
  ASSERT_FALSE(is_noticed(path_));
  std::mt19937_64 random(11);
  for (int round = 0; round < 1500; ++round) {
    // Every third flip in the first or last pages, where the structures are dense.
    std::size_t at = random() % bytes_.size();
    if (round % 3 == 0) at = random() % 4096;
    if (round % 3 == 1) at = bytes_.size() - 1 - random() % 24000;
    const char wrong = static_cast<char>(bytes_[at] ^ (1 << random() % 8));
    write_byte(at, wrong);
    EXPECT_TRUE(is_noticed(path_)) << "byte " << at;
    write_byte(at, bytes_[at]);
  }
  EXPECT_FALSE(is_noticed(path_));
}

TEST_F(Damage, NoTruncationIsSilent) {
  for (const std::size_t cut : {std::size_t{0}, std::size_t{1}, std::size_t{8}, std::size_t{100},
                                bytes_.size() / 3, bytes_.size() / 2, bytes_.size() - 8192,
                                bytes_.size() - 65, bytes_.size() - 63, bytes_.size() - 1}) {
    write(bytes_.substr(0, cut));
    EXPECT_TRUE(is_noticed(path_)) << cut;
    EXPECT_FALSE(newest_checkpoint(path_.parent_path()).has_value()) << cut;
  }
  write(bytes_ + "more");
  EXPECT_TRUE(is_noticed(path_));
}

TEST_F(Damage, ANewerFormatIsRefusedAsNewer) {
  using detail::kTrailerBytes;
  std::string newer = bytes_;
  const std::size_t at = newer.size() - kTrailerBytes;
  newer[at + 8] = 2;  // format_version
  const std::uint64_t digest =
      detail::digest_of(std::string_view(newer).substr(at, kTrailerBytes - sizeof(digest)));
  newer.replace(newer.size() - sizeof(digest), sizeof(digest),
                reinterpret_cast<const char*>(&digest), sizeof(digest));
  write(newer);
  const std::string text =
      expect_same_error(Errc::unsupported, [&] { open_checkpoint(world(), path_); });
  EXPECT_NE(text.find("format version 2"), std::string::npos) << text;
  EXPECT_NE(text.find("use a newer cairn"), std::string::npos) << text;
}

/// A container whose commit record and trailer are right again after `change` had its way with the
/// record and the bytes.
template <class F>
std::string resealed(std::string bytes, F&& change) {
  using namespace detail;
  const auto all = std::as_writable_bytes(std::span(bytes));
  const auto put = [&](std::uint64_t at, std::span<const std::byte> from) {
    std::copy(from.begin(), from.end(), all.subspan(at).begin());
  };
  const std::uint64_t end = bytes.size() - kTrailerBytes;
  Trailer trailer = *decode_trailer(all.subspan(end));
  CommitRecord record = decode_commit(all.subspan(trailer.commit_offset, kCommitBytes));
  change(record, bytes);
  put(trailer.commit_offset, encode_commit(record));
  trailer.commit_digest = digest_of(all.subspan(trailer.commit_offset, kCommitBytes));
  put(end, encode_trailer(trailer));
  return bytes;
}

TEST_F(Damage, NoDocumentIsThereUnderManyNames) {
  write(resealed(bytes_, [](detail::CommitRecord&, std::string&) {}));
  EXPECT_FALSE(is_noticed(path_));
  write(resealed(bytes_, [](detail::CommitRecord& record, std::string&) {
    const auto slot = record.documents.begin()->second;
    for (int i = 0; i < 20; ++i) record.documents["again" + std::to_string(i)] = slot;
  }));
  const std::string text =
      expect_same_error(Errc::corrupt, [&] { open_checkpoint(world(), path_); });
  EXPECT_NE(text.find("same place"), std::string::npos) << text;
}

TEST_F(Damage, ADocumentNestedTooDeepIsNeitherWrittenNorRead) {
  const std::string deep(5000, '[');
  const auto pieces = sample_pieces(Cut::columns, world().size(), world().rank());
  StateView state = sample_state(pieces, world().rank(), 2);
  state.documents["deep"] = deep + std::string(deep.size(), ']');
  const auto path = path_.parent_path() / "step-00000002.h5";
  const std::string refused =
      expect_same_error(Errc::usage, [&] { Saver(world(), {}).save(path, state); });
  EXPECT_NE(refused.find("nested"), std::string::npos) << refused;
  state.documents["deep"] = "\"" + std::string(2 * deep.size() - 2, 'x') + "\"";
  path_ = path;
  Saver(world(), {}).save(path_, state);
  agree(world(), "read", [&] {
    std::ifstream file(path_, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
  });
  write(resealed(bytes_, [&](detail::CommitRecord& record, std::string& bytes) {
    auto& slot = record.documents.at("deep");
    bytes.replace(slot.span.offset, 2 * deep.size(), deep + std::string(deep.size(), ']'));
    slot.digest = detail::digest_of(
        std::as_bytes(std::span(bytes)).subspan(slot.span.offset, slot.span.bytes));
  }));
  const std::string text =
      expect_same_error(Errc::unsafe, [&] { open_checkpoint(world(), path_); });
  EXPECT_NE(text.find("nested"), std::string::npos) << text;
}

TEST_F(Damage, ALoadOfDamagedDataChangesNothing) {
  const Manifest manifest = open_checkpoint(world(), path_);
  const TensorEntry* tensor = manifest.find("model/large");
  const std::size_t at = tensor->extents.back().offset + 17;
  write_byte(at, static_cast<char>(bytes_[at] ^ 4));
  auto pieces = sample_pieces(Cut::flat, world().size(), world().rank());
  std::vector<MutableTensorView> targets;
  for (Piece& piece : pieces) {
    std::fill(piece.bytes.begin(), piece.bytes.end(), std::byte{0x5a});
    targets.push_back({piece.name, piece.dtype, piece.placement, piece.bytes.data()});
  }
  const std::string text = expect_same_error(
      Errc::corrupt, [&] { load_tensors(world(), open_checkpoint(world(), path_), targets); });
  EXPECT_NE(text.find("model/large"), std::string::npos) << text;
  for (const Piece& piece : pieces) {
    for (const std::byte byte : piece.bytes) ASSERT_EQ(byte, std::byte{0x5a}) << piece.name;
  }
}

TEST(Mismatch, WrongTargetsAreRefusedByNameOnAllRanks) {
  const auto path = scratch() / "step-00000001.h5";
  const auto pieces = sample_pieces(Cut::rows, world().size(), world().rank());
  Saver(world(), {}).save(path, sample_state(pieces, world().rank(), 1));
  const Manifest manifest = open_checkpoint(world(), path);
  std::vector<std::byte> memory(1 << 20);
  const auto error_for = [&](const std::string& name, DType dtype, const Shape& shape, Errc code) {
    // Only the last rank asks for the wrong thing.
    std::vector<MutableTensorView> targets;
    if (world().rank() == world().size() - 1) {
      targets.push_back({name, dtype, Placement::replicated(shape), memory.data()});
    }
    const std::string text =
        expect_same_error(code, [&] { load_tensors(world(), manifest, targets); });
    EXPECT_NE(text.find(name), std::string::npos) << text;
    EXPECT_NE(text.find(path.string()), std::string::npos) << text;
  };
  error_for("model/nothing", DType::f32, {2}, Errc::not_found);
  error_for("model/deep", DType::f32, {4, 6, 10}, Errc::mismatch);
  error_for("model/deep", DType::i32, {4, 60}, Errc::mismatch);
}

TEST(Mismatch, RanksThatDisagreeAreToldTheSame) {
  const auto dir = scratch();
  Saver saver(world(), {});
  const auto pieces = sample_pieces(Cut::rows, world().size(), world().rank());
  const auto rank = static_cast<std::uint64_t>(world().rank());
  if (world().size() == 1) return;  // nobody to disagree with
  expect_same_error(Errc::mismatch, [&] {
    saver.save(dir / "step-00000001.h5", sample_state(pieces, world().rank(), rank));
  });
  expect_same_error(Errc::mismatch, [&] {
    saver.save(checkpoint_path(dir, rank), sample_state(pieces, world().rank(), 1));
  });
  const std::vector<float> data(64);
  StateView state;
  state.tensors.push_back({"model/w", DType::f32, Placement::replicated({2, 3 + rank}),
                           reinterpret_cast<const std::byte*>(data.data())});
  const std::string text =
      expect_same_error(Errc::mismatch, [&] { saver.save(checkpoint_path(dir, 1), state); });
  EXPECT_NE(text.find("model/w"), std::string::npos) << text;
  EXPECT_NE(text.find("[2, 4] on rank 1"), std::string::npos) << text;
  EXPECT_TRUE(std::filesystem::is_empty(dir));
}

}  // namespace
}  // namespace cairn
