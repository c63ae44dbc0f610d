// PyTorch's files through the whole reader: what torch.save may write and rarely does, and
// thousands of broken files of which none may do more than be refused.
#include "support/torch_file.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <numeric>
#include <optional>
#include <random>
#include <span>

#include "cairn/error.hpp"
#include "formats/pickle/parse.hpp"
#include "formats/torch/archive.hpp"
#include "formats/torch/optimizer_names.hpp"
#include "formats/torch/reader.hpp"
#include "formats/torch/walk.hpp"
#include "fuzz/mutate.hpp"
#include "fuzz/reader_target.hpp"
#include "support/corpus.hpp"
#include "transfer/reader.hpp"

namespace cairn::detail {
namespace {

using test::Pickler;
using test::zip_of;
using test::ZipPart;

namespace fs = std::filesystem;

std::string floats(int count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), 0.0F);
  std::string bytes(4 * values.size(), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

class TorchFile : public testing::Test {
 protected:
  TorchFile() { fs::create_directories(dir_); }
  ~TorchFile() override { fs::remove_all(dir_); }

  Manifest read(const std::string& bytes) {
    const fs::path path = dir_ / "file.pt";
    std::ofstream(path, std::ios::binary) << bytes;
    TableBytes table_bytes;
    return read_torch(path, table_bytes);
  }

  Errc failure_of(const std::string& bytes) {
    try {
      read(bytes);
    } catch (const Error& error) {
      return error.code();
    }
    ADD_FAILURE() << "it was read";
    return Errc::internal;
  }

  fs::path dir_ = fs::temp_directory_path() / ("cairn-torch-" + std::to_string(getpid()));
};

std::vector<float> values_of(const Manifest& manifest, const TensorEntry& tensor,
                             const Placement& piece) {
  std::vector<float> values(piece.elements());
  Reader reader(manifest);
  reader.read(tensor, piece, reinterpret_cast<std::byte*>(values.data()));
  return values;
}

/// One 4 x 6 storage of 0 to 23, and views of it.
std::string views(std::vector<ZipPart> more = {}, bool zip64 = false) {
  Pickler pickler;
  pickler.raw("}(");
  pickler.text("base").tensor("FloatStorage", "0", 24, 0, {4, 6}, {6, 1});
  pickler.text("transposed").tensor("FloatStorage", "0", 24, 0, {6, 4}, {1, 6});
  pickler.text("block").tensor("FloatStorage", "0", 24, 7, {2, 3}, {6, 1});
  pickler.text("expanded").tensor("FloatStorage", "0", 24, 5, {2, 3}, {0, 6});
  pickler.text("windows").tensor("FloatStorage", "0", 24, 0, {4, 3}, {1, 1});
  pickler.text("one").tensor("FloatStorage", "0", 24, 9, {}, {});
  std::vector<ZipPart> parts{{"x y.z/data.pkl", pickler.raw("u").stop(), zip64, true},
                             {"x y.z/data/0", floats(24), zip64, true},
                             {"x y.z/version", "3\n"}};
  parts.insert(parts.end(), more.begin(), more.end());
  return zip_of(parts, zip64);
}

TEST_F(TorchFile, ViewsAreGatheredWholeAndInParts) {
  const Manifest manifest = read(views());
  const auto expect = [&](const char* name, const std::vector<float>& wanted) {
    const TensorEntry& tensor = *manifest.find(name);
    EXPECT_EQ(values_of(manifest, tensor, Placement::replicated(tensor.shape)), wanted) << name;
    for (std::uint64_t i = 0; i < wanted.size(); ++i) {  // any flat range, as ranks may hold it
      const Placement tail = Placement::flat(tensor.shape, i, wanted.size() - i);
      const std::vector<float> rest(wanted.begin() + static_cast<std::ptrdiff_t>(i), wanted.end());
      EXPECT_EQ(values_of(manifest, tensor, tail), rest) << name << " from " << i;
    }
  };
  std::vector<float> base(24);
  std::iota(base.begin(), base.end(), 0.0F);
  std::vector<float> transposed;
  for (int i = 0; i < 6; ++i) {
    for (int j = 0; j < 4; ++j) transposed.push_back(static_cast<float>(6 * j + i));
  }
  expect("base", base);
  expect("transposed", transposed);
  expect("block", {7, 8, 9, 13, 14, 15});
  expect("expanded", {5, 11, 17, 5, 11, 17});
  expect("windows", {0, 1, 2, 1, 2, 3, 2, 3, 4, 3, 4, 5});
  expect("one", {9});
  EXPECT_EQ(manifest.find("base")->layout, Layout::contiguous);
  EXPECT_EQ(manifest.find("transposed")->layout, Layout::strided);
  EXPECT_EQ(manifest.documents.at("aliases"),
            R"([["base","block","expanded","one","transposed","windows"]])");
}

TEST_F(TorchFile, Zip64AndUnalignedMembersAreRead) {
  const Manifest manifest =
      read(views({{"x y.z/anemoi-metadata/anemoi.json", R"({"uuid":"u","x":NaN})"}}, true));
  EXPECT_EQ(values_of(manifest, *manifest.find("block"), Placement::replicated({2, 3})),
            (std::vector<float>{7, 8, 9, 13, 14, 15}));
  EXPECT_NE(manifest.documents.at("anemoi").find(R"("uuid":"u","x":null)"), std::string::npos);
}

TEST_F(TorchFile, AnArchiveWithinAFileIsReadByItsWindow) {
  const std::string inner = views();
  const fs::path path = dir_ / "many";
  std::ofstream(path, std::ios::binary) << std::string(1000, 'x') << inner << "behind it";
  const File file = File::open_read(path);
  const torch::Archive archive = torch::Archive::open(file, 1000, inner.size());
  const pickle::Graph graph = archive.read_pickle(file);
  torch::Storages storages = torch::storages_of(graph);
  archive.place(storages);
  ASSERT_EQ(storages.all.size(), 1U);
  std::vector<float> values(24);
  file.read_at(storages.all[0].offset, std::as_writable_bytes(std::span(values)));
  EXPECT_EQ(values[23], 23.0F);
}

TEST_F(TorchFile, ATableOfManyTensorsIsSmall) {
  constexpr int kTensors = 20'000;
  Pickler pickler;
  pickler.raw("}(");
  std::vector<ZipPart> parts(1);
  for (int i = 0; i < kTensors; ++i) {
    pickler.text("layer." + std::to_string(i))
        .tensor("FloatStorage", std::to_string(i), 1, 0, {1}, {1});
    parts.push_back({"a/data/" + std::to_string(i), std::string(4, 'x')});
  }
  parts[0] = {"a/data.pkl", pickler.raw("u").stop()};
  // zip_of has no room for more than 65535 members.
  EXPECT_EQ(read(zip_of(parts)).tensors.size(), std::size_t{kTensors});
}

TEST_F(TorchFile, MoreDimensionsThanPyTorchHasAreRefused) {
  const auto with_rank = [](std::size_t rank) {
    Pickler pickler;
    const std::vector<std::int64_t> ones(rank, 1);
    pickler.raw("}").text("w").tensor("FloatStorage", "0", 1, 0, ones, ones);
    return zip_of({{"a/data.pkl", pickler.raw("s").stop()}, {"a/data/0", floats(1)}});
  };
  EXPECT_EQ(read(with_rank(64)).tensors.size(), 1U);
  EXPECT_EQ(failure_of(with_rank(65)), Errc::unsupported);
}

/// A list of `count` references to one value.
std::string many_of(const Pickler& value, std::size_t count) {
  Pickler pickler = value;
  pickler.raw("q").raw(std::string(1, '\x01')).raw("0](");
  for (std::size_t i = 0; i < count; ++i) pickler.raw("h\x01");
  return pickler.raw("e").stop();
}

/// How a walk of a pickle ends that may look at `most_work` values and bytes.
std::optional<Errc> failure_of_walk(const std::string& pickle, std::uint64_t most_work) {
  const auto bytes = std::as_bytes(std::span(pickle));
  const auto graph = pickle::parse({bytes.begin(), bytes.end()}, "a pickle");
  try {
    TableBytes table_bytes;
    torch::WalkBudget budget{.work = most_work};
    torch::walk(graph, {}, table_bytes, budget);
    return std::nullopt;
  } catch (const Error& error) {
    return error.code();
  }
}

TEST_F(TorchFile, LargeValuesAtManyPlacesAreRefused) {
  Pickler few;  // what no list would notice
  few.global("some", "Thing").raw("(").text(std::string(1 << 16, 'x')).raw("t\x81");
  EXPECT_EQ(read(zip_of({{"a/data.pkl", many_of(few, 20)}})).warnings.size(), 0U);
  constexpr std::uint64_t kMost = 1 << 22;
  Pickler numbers;
  numbers.raw("](");
  for (int i = 0; i < 1000; ++i) numbers.integer(1);
  numbers.raw("e");
  EXPECT_EQ(failure_of_walk(many_of(numbers, 100), kMost), std::nullopt);
  EXPECT_EQ(failure_of_walk(many_of(numbers, 10'000), kMost), Errc::unsafe);
  Pickler dict;
  dict.raw("}").text(std::string(1 << 12, 'k')).raw("Ns");
  EXPECT_EQ(failure_of_walk(many_of(dict, 100), kMost), std::nullopt);
  EXPECT_EQ(failure_of_walk(many_of(dict, 10'000), kMost), Errc::unsafe);
}

TEST_F(TorchFile, AValueTooLargeToListIsLeftOut) {
  Pickler pickler;
  pickler.raw("}(").text("big").text(std::string(30 << 20, 'x'));
  pickler.text("w").tensor("FloatStorage", "0", 1, 0, {1}, {1});
  const Manifest manifest =
      read(zip_of({{"a/data.pkl", pickler.raw("u").stop()}, {"a/data/0", floats(1)}}));
  EXPECT_EQ(manifest.tensors.size(), 1U);
  ASSERT_EQ(manifest.warnings.size(), 1U);
  EXPECT_EQ(manifest.documents.at("objects").find("xxx"), std::string::npos);
}

TEST_F(TorchFile, WhatCannotBeReadIsRefusedWithAReason) {
  EXPECT_EQ(failure_of(zip_of({{"a/data.pkl", "\x80\x02}."}, {"a/code/x.py", ""}})),
            Errc::unsupported);
  EXPECT_EQ(failure_of(zip_of({{"a/data.pkl", "\x80\x02}."}, {"a/byteorder", "big"}})),
            Errc::unsupported);
  EXPECT_EQ(failure_of(zip_of({{"a/data.pkl", "\x80\x02}."}, {"b/data.pkl", "\x80\x02}."}})),
            Errc::corrupt);
  EXPECT_EQ(failure_of(zip_of({{"a/data.pkl", "\x80\x02}."}, {"a/../x", ""}})), Errc::unsafe);
  EXPECT_EQ(failure_of(zip_of({{"a/data.pkl", "\x80\x02}."}, {"a/x", ""}, {"a/x", ""}})),
            Errc::corrupt);
  EXPECT_EQ(failure_of(views() + "x"), Errc::corrupt);
  EXPECT_EQ(failure_of("x" + views()), Errc::corrupt);
  EXPECT_EQ(failure_of("\x80\x02}."), Errc::unsupported);
}

TEST(OptimizerNames, AreFoundWhereOnlyOneWayFits) {
  using torch::ModelTensor;
  using torch::OptimizerParameter;
  const std::vector<ModelTensor> model{
      {"scale", {5}},       {"grid", {4, 2}},   {"enc.weight", {8, 6}},     {"enc.bias", {8}},
      {"norm.weight", {8}}, {"norm.bias", {8}}, {"norm.running_mean", {8}}, {"dec.weight", {5, 8}},
      {"dec.bias", {5}},    {"post.add", {5}},  {"post.mul", {5}}};
  const auto parameters = [](const std::vector<std::optional<Shape>>& shapes) {
    std::vector<OptimizerParameter> all;
    for (const auto& shape : shapes) all.push_back({0, shape});
    return all;
  };
  const auto names = optimizer_names(
      model, parameters({Shape{8, 6}, Shape{8}, Shape{8}, Shape{8}, Shape{5, 8}, Shape{5}}));
  EXPECT_EQ(names, (std::vector<std::string>{"enc.weight", "enc.bias", "norm.weight", "norm.bias",
                                             "dec.weight", "dec.bias"}));
  // Without the encoder, whose bias has the shape of the norm's.
  EXPECT_EQ(optimizer_names(model, parameters({Shape{8}, Shape{8}, Shape{5, 8}, Shape{5}})),
            (std::vector<std::string>{"norm.weight", "norm.bias", "dec.weight", "dec.bias"}));
  // Two groups: weights of matrices, and the rest.
  std::vector<OptimizerParameter> two{{0, Shape{8, 6}}, {0, Shape{5, 8}}, {1, Shape{8}},
                                      {1, Shape{8}},    {1, Shape{8}},    {1, Shape{5}}};
  EXPECT_EQ(optimizer_names(model, two),
            (std::vector<std::string>{"enc.weight", "dec.weight", "enc.bias", "norm.weight",
                                      "norm.bias", "dec.bias"}));
  // One of the last three vectors, or the first: nobody can tell.
  EXPECT_EQ(optimizer_names(model, parameters({Shape{5}})), std::nullopt);
  EXPECT_EQ(optimizer_names(model, parameters({Shape{7}})), std::nullopt);
  EXPECT_EQ(optimizer_names({}, parameters({std::nullopt})), std::nullopt);
}

TEST(OptimizerNames, AreGivenUpBeforeTheSearchFillsTheMemory) {
  constexpr std::size_t kMany = 3000;  // the second step alone would take 50 GB
  std::vector<torch::ModelTensor> model;
  std::vector<torch::OptimizerParameter> parameters;
  for (std::size_t i = 0; i < kMany; ++i) {
    model.push_back({"w" + std::to_string(i), {1}});
    parameters.push_back({i, std::nullopt});
  }
  EXPECT_EQ(optimizer_names(model, parameters), std::nullopt);
}

/// Files to be broken: handmade ones, and small ones of the corpus where there is one.
std::vector<std::string> seeds() {
  std::vector<std::string> seeds{views(), views({}, true)};
  for (const char* folder : {"torch", "torch-legacy", "training", "inference", "lightning"}) {
    const fs::path given = test::in_corpus(folder);
    if (given.empty()) continue;
    for (const auto& entry : fs::recursive_directory_iterator(given)) {
      if (!entry.is_regular_file() || entry.file_size() > 40'000) continue;
      std::ifstream in(entry.path(), std::ios::binary);
      seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    }
  }
  return seeds;
}

/// The same archive with another pickle and the right CRCs, so that the pickle is looked at.
std::string with_pickle(const std::string& file_bytes, const fs::path& path,
                        const std::function<void(std::string&)>& change) {
  std::ofstream(path, std::ios::binary) << file_bytes;
  const File file = File::open_read(path);
  std::vector<ZipPart> parts;
  const ZipTable table = ZipTable::read(file, 0, file.size());
  for (const ZipMember& member : table.members()) {
    const auto bytes = table.read_member(file, member, 1 << 20);
    parts.push_back({member.name, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}});
    if (member.name.ends_with("/data.pkl")) change(parts.back().data);
  }
  return zip_of(parts);
}

TEST(TableBytesOf, LargeFilesHaveRoomForMore) {
  constexpr std::uint64_t kMiB = 1 << 20;
  TableBytes small;
  small.add_bytes(96 * kMiB);
  EXPECT_FALSE(small.add_if_room(1));
  TableBytes large;
  large.add_file(300 * kMiB);
  large.add_file(100 * kMiB);
  large.add_bytes(196 * kMiB);
  EXPECT_THROW(large.add_bytes(1), Error);
}

TEST_F(TorchFile, BrokenFilesAreRefusedOrReadWithinTheFile) {
  std::mt19937_64 random(20261125);
  const auto run = [](const std::string& bytes) {
    fuzz::read_as_file({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
  };
  const std::vector<std::string> all = seeds();
  if (all.size() < 3) std::puts("NOT TESTED: no corpus of checkpoints; set CAIRN_CORPUS");
  const std::size_t rounds = 12'000 / all.size() + 1;
  for (const std::string& seed : all) {
    const bool zip = seed.starts_with("PK");
    for (std::size_t i = 0; i < rounds; ++i) {
      if (zip && i % 4 != 0) {
        run(with_pickle(seed, dir_ / "seed",
                        [&](std::string& pickle) { fuzz::mutate(pickle, random); }));
      } else {
        std::string bytes = seed;
        fuzz::mutate(bytes, random);
        run(bytes);
      }
    }
  }
}

}  // namespace
}  // namespace cairn::detail
