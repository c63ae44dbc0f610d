// Files of other formats, read by all ranks at once.
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "cairn/checkpoint.hpp"
#include "support/mpi_test.hpp"

namespace cairn {
namespace {

using namespace test;

std::string file_of(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + data;
}

/// first: f32 [6, 5], values 0 to 29; second, in another file: i64 [4], values 7 to 10; and one
/// without elements.
class Foreign : public testing::TestWithParam<EngineKind> {
 protected:
  void SetUp() override {
    options_.engine = GetParam();
    const auto dir = scratch();
    path_ = dir / "model.safetensors.index.json";
    shard_ = dir / "a.safetensors";
    std::vector<float> first(30);
    std::iota(first.begin(), first.end(), 0.F);
    const std::vector<std::int64_t> second{7, 8, 9, 10};
    agree(world(), "write", [&] {
      if (!world().is_root()) return;
      write(shard_, file_of(R"({"none":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]},)"
                            R"("first":{"dtype":"F32","shape":[6,5],"data_offsets":[0,120]}})",
                            {reinterpret_cast<const char*>(first.data()), 120}));
      write(dir / "b.safetensors",
            file_of(R"({"second":{"dtype":"I64","shape":[4],"data_offsets":[0,32]}})",
                    {reinterpret_cast<const char*>(second.data()), 32}));
      write(path_, R"({"weight_map":{"none":"a.safetensors","first":"a.safetensors",)"
                   R"("second":"b.safetensors"}})");
    });
  }

  static void write(const std::filesystem::path& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  }

  template <class T>
  static MutableTensorView target(const std::string& name, DType dtype, Placement placement,
                                  std::vector<T>& memory) {
    memory.assign(placement.elements(), T{});
    return {name, dtype, std::move(placement), reinterpret_cast<std::byte*>(memory.data())};
  }

  std::filesystem::path path_;
  std::filesystem::path shard_;
  LoadOptions options_;
};

TEST_P(Foreign, EveryRankReadsItsPartOfEveryFile) {
  const int ranks = world().size();
  const int rank = world().rank();
  const Manifest manifest = open_checkpoint(world(), path_);
  EXPECT_EQ(manifest.format, "safetensors");
  EXPECT_EQ(manifest.files.size(), 3U);
  std::vector<float> columns;
  std::vector<float> flat;
  std::vector<std::int64_t> second;
  std::vector<float> none;
  const std::vector<MutableTensorView> targets{
      target("first", DType::f32, Placement::split({6, 5}, 1, ranks, rank), columns),
      target("first", DType::f32, Placement::flat_split({6, 5}, ranks, rank), flat),
      target("second", DType::i64, Placement::replicated({4}), second),
      target("none", DType::f32, Placement::replicated({0, 5}), none)};
  const LoadResult result = load_tensors(world(), manifest, targets, options_);
  const Range mine = balanced_range(5, ranks, rank);
  std::size_t at = 0;
  for (std::uint64_t row = 0; row < 6; ++row) {
    for (std::uint64_t c = mine.start; c < mine.start + mine.count; ++c) {
      EXPECT_EQ(columns[at++], static_cast<float>(5 * row + c));
    }
  }
  const Range range = balanced_range(30, ranks, rank);
  for (std::uint64_t i = 0; i < range.count; ++i) {
    EXPECT_EQ(flat[i], static_cast<float>(range.start + i));
  }
  EXPECT_EQ(second, (std::vector<std::int64_t>{7, 8, 9, 10}));
  EXPECT_EQ(result.tensors, 2U);
}

TEST_P(Foreign, ConvertsAndFiltersAsFromAContainer) {
  options_.cast = true;
  options_.only.names = {"second"};
  const Manifest manifest = open_checkpoint(world(), path_);
  std::vector<std::int8_t> narrow;
  const auto view = target("second", DType::i8, Placement::replicated({4}), narrow);
  const LoadResult result = load_tensors(world(), manifest, {&view, 1}, options_);
  EXPECT_EQ(narrow, (std::vector<std::int8_t>{7, 8, 9, 10}));
  EXPECT_EQ(result.casts, (std::vector<TensorCast>{{"second", DType::i64, DType::i8}}));
}

TEST_P(Foreign, AShardThatWasReplacedIsNoticed) {
  const Manifest manifest = open_checkpoint(world(), path_);
  agree(world(), "write", [&] {
    if (world().is_root()) {
      write(shard_, file_of(R"({"none":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]},)"
                            R"("first":{"dtype":"F32","shape":[6,5],"data_offsets":[0,120]}})",
                            std::string(120, 'x')));
    }
  });
  std::vector<float> first;
  const auto view = target("first", DType::f32, Placement::replicated({6, 5}), first);
  const std::string text = expect_same_error(Errc::mismatch, [&] {
    load_tensors(world(), manifest, {&view, 1}, options_);
  });
  EXPECT_NE(text.find("a.safetensors"), std::string::npos) << text;
}

TEST_P(Foreign, EveryRankIsToldOfADamagedShard) {
  agree(world(), "write", [&] {
    if (world().is_root()) std::filesystem::resize_file(shard_, 100);
  });
  const std::string text =
      expect_same_error(Errc::corrupt, [&] { open_checkpoint(world(), path_); });
  EXPECT_NE(text.find("a.safetensors"), std::string::npos) << text;
}

INSTANTIATE_TEST_SUITE_P(Engines, Foreign, testing::Values(EngineKind::direct, EngineKind::mpio),
                         [](const auto& param) { return std::string(to_string(param.param)); });

}  // namespace
}  // namespace cairn
