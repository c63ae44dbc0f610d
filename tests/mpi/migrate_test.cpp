// A load that migrates first: names and places change, no byte does, and digests still count.
#include <cstring>
#include <fstream>
#include <map>

#include "cairn/checkpoint.hpp"
#include "pipeline/migrations/run.hpp"
#include "support/mpi_test.hpp"
#include "support/sample_state.hpp"

namespace cairn {
namespace {

using namespace test;
using detail::migrations::migrated_for_load;
namespace fs = std::filesystem;

Manifest saved(const fs::path& path, Cut cut) {
  auto pieces = sample_pieces(cut, world().size(), world().rank());
  const StateView state = sample_state(pieces, world().rank(), 12);
  SaveOptions options;
  options.durable = false;
  Saver(world(), options).save(path, state);
  return open_checkpoint(world(), path);
}

/// A directory that rank 0 alone needs.
fs::path steps(const fs::path& scratch, const std::string& name, const std::string& text) {
  const fs::path folder = scratch / name;
  agree(world(), "test", [&] {
    if (!world().is_root()) return;
    fs::create_directory(folder);
    std::ofstream(folder / "1_test.yaml") << "version: 1\nsteps:\n" << text;
  });
  return world().is_root() ? folder : fs::path("/nowhere");
}

std::vector<std::byte> load(const Manifest& manifest, const std::string& name,
                            EngineKind engine = EngineKind::direct) {
  const TensorEntry* tensor = manifest.find(name);
  if (tensor == nullptr) {
    ADD_FAILURE() << name;
    return {};
  }
  std::vector<std::byte> bytes(tensor->bytes());
  LoadOptions options;
  options.engine = engine;
  load_tensors(world(), manifest,
               std::vector<MutableTensorView>{
                   {name, tensor->dtype, Placement::replicated(tensor->shape), bytes.data()}},
               options);
  return bytes;
}

/// Rows of 4-byte elements, as numbers.
std::vector<std::uint32_t> numbers(const std::vector<std::byte>& bytes) {
  std::vector<std::uint32_t> numbers(bytes.size() / 4);
  std::memcpy(numbers.data(), bytes.data(), bytes.size());
  return numbers;
}

TEST(Migrate, ALoadSeesNewNamesAndPlaces) {
  const fs::path folder = scratch();
  for (const Cut cut : {Cut::rows, Cut::columns, Cut::flat}) {
    const Manifest manifest = saved(folder / "a.h5", cut);
    const auto large = numbers(load(manifest, "model/large"));
    const auto deep = numbers(load(manifest, "model/deep"));
    const Manifest migrated = migrated_for_load(
        world(), manifest,
        steps(folder, "steps" + std::string(to_string(cut)),
              "  - {type: rename, names: {counting: all, all: counting}}\n"
              "  - {type: split, name: large, into: [left, right], dim: 1, sizes: [100, 1052]}\n"
              "  - {type: permute, names: [deep], dim: 1, order: [5, 4, 3, 2, 1, 0]}\n"
              "  - {type: split, name: deep, into: [d0, d1]}\n"),
        /*verify=*/true);
    for (const EngineKind engine : {EngineKind::direct, EngineKind::mpio}) {
      EXPECT_EQ(load(migrated, "model/all.f32", engine), load(manifest, "model/counting.f32"));
      EXPECT_EQ(load(migrated, "model/counting.i16", engine), load(manifest, "model/all.i16"));
      const auto right = numbers(load(migrated, "model/right", engine));
      ASSERT_EQ(right.size(), 256U * 1052U);
      bool equal = true;
      for (std::size_t i = 0; i < right.size(); ++i) {
        equal = equal && right[i] == large[i / 1052 * 1152 + 100 + i % 1052];
      }
      EXPECT_TRUE(equal);
      const auto second = numbers(load(migrated, "model/d1", engine));
      ASSERT_EQ(second.size(), 2U * 6 * 10);
      for (std::size_t i = 0; i < second.size(); ++i) {
        EXPECT_EQ(second[i], deep[(i / 60 + 2) * 60 + (5 - i / 10 % 6) * 10 + i % 10]) << i;
      }
    }
  }
}

TEST(Migrate, ALoadAsksForNoNumbersOfPyTorch) {
  const fs::path folder = scratch();
  Manifest manifest = saved(folder / "a.h5", Cut::rows);
  manifest.documents["tree"] = R"([["model/large",["model","large"]]])";
  manifest.documents["optimizers"] =
      R"([{"path":["optimizer"],"param_groups":[{"params":[0]}],"parameters":null}])";
  const Manifest migrated = migrated_for_load(
      world(), manifest, steps(folder, "steps", "  - {type: split, name: large, into: [a, b]}\n"),
      /*verify=*/true);
  const auto large = load(manifest, "model/large");
  auto halves = load(migrated, "model/a");
  const auto second = load(migrated, "model/b");
  halves.insert(halves.end(), second.begin(), second.end());
  EXPECT_EQ(halves, large);
}

TEST(Migrate, DamageIsFoundBeforeTheLoad) {
  const fs::path folder = scratch();
  const Manifest manifest = saved(folder / "a.h5", Cut::rows);
  agree(world(), "test", [&] {
    if (!world().is_root()) return;
    std::fstream file(folder / "a.h5", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(manifest.find("model/large")->offset + 5));
    file.put('x');
  });
  const std::string split = "  - {type: split, name: large, into: [a, b]}\n";
  const std::string text = expect_same_error(Errc::corrupt, [&] {
    migrated_for_load(world(), manifest, steps(folder, "split", split), /*verify=*/true);
  });
  EXPECT_NE(text.find("'model/large'"), std::string::npos) << text;
  const Manifest renamed = migrated_for_load(
      world(), manifest, steps(folder, "name", "  - {type: rename, names: {large: a}}\n"), true);
  expect_same_error(Errc::corrupt, [&] { load(renamed, "model/a"); });
}

TEST(Migrate, WhatNeedsBytesIsRefusedAndErrorsAreTheSame) {
  const fs::path folder = scratch();
  const Manifest manifest = saved(folder / "a.h5", Cut::rows);
  const std::string cast = expect_same_error(Errc::unsupported, [&] {
    migrated_for_load(world(), manifest,
                      steps(folder, "cast", "  - {type: cast, names: [large], dtype: bf16}\n"),
                      true);
  });
  EXPECT_NE(cast.find("'cairn migrate'"), std::string::npos) << cast;
  const std::string wrong = expect_same_error(Errc::not_found, [&] {
    migrated_for_load(world(), manifest,
                      steps(folder, "wrong", "  - {type: drop, names: [lorge]}\n"), true);
  });
  EXPECT_NE(wrong.find("1_test.yaml:3: 'steps[0]' (drop)"), std::string::npos) << wrong;
  expect_same_error(Errc::not_found,
                    [&] { migrated_for_load(world(), manifest, "/nowhere", true); });
}

}  // namespace
}  // namespace cairn
