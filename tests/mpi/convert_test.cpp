// Conversions on all ranks: what goes through any format comes back with every bit and alias.
#include "checkpoint/convert.hpp"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "cairn/checkpoint.hpp"
#include "support/corpus.hpp"
#include "support/mpi_test.hpp"
#include "support/sample_state.hpp"

namespace cairn {
namespace {

using namespace test;
using detail::ConvertOptions;
using detail::TargetFormat;
using Json = nlohmann::json;

namespace fs = std::filesystem;

Manifest convert(const Manifest& source, const fs::path& target, TargetFormat to,
                 ConvertOptions options = {}) {
  options.to = to;
  options.durable = false;
  options.overwrite = true;
  detail::convert_checkpoint(world(), source, target, options);
  return open_checkpoint(world(), target);
}

struct Content {
  DType dtype = DType::f32;
  Shape shape;
  std::vector<std::byte> bytes;
  bool operator==(const Content&) const = default;
};

/// All tensors by name.
std::map<std::string, Content> contents_of(const Manifest& manifest) {
  std::map<std::string, Content> contents;
  std::vector<MutableTensorView> targets;
  for (const TensorEntry& tensor : manifest.tensors) {
    if (tensor.name.starts_with("ranks/")) continue;
    Content& content = contents[tensor.name];
    content = {tensor.dtype, tensor.shape, std::vector<std::byte>(tensor.bytes())};
    targets.push_back(
        {tensor.name, tensor.dtype, Placement::replicated(tensor.shape), content.bytes.data()});
  }
  LoadOptions options;
  options.verify = VerifyWhen::never;
  load_tensors(world(), manifest, targets, options);
  return contents;
}

std::map<std::string, std::string> state_documents(const Manifest& manifest) {
  auto documents = manifest.documents;
  documents.erase("topology");
  documents.erase("provenance");
  return documents;
}

/// What a trainer saves: tied weights once, an optimizer by names, all dtypes, odd names.
Manifest trained(const fs::path& path) {
  auto pieces = sample_pieces(Cut::rows, world().size(), world().rank());
  StateView state = sample_state(pieces, world().rank(), 12);
  std::vector<float> values(12);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.5F + static_cast<float>(i);
  const std::int64_t count = 7;
  const auto add = [&](const std::string& name, DType dtype, Shape shape, const void* data) {
    state.tensors.push_back({name, dtype, Placement::replicated(std::move(shape)),
                             static_cast<const std::byte*>(data)});
  };
  add("model/encoder.weight", DType::f32, {3, 4}, values.data());
  add("model/odd %2Fname\\", DType::f32, {2}, values.data());
  add("model/none", DType::f32, {0, 3}, values.data());
  add("elsewhere/state", DType::f32, {2, 2}, values.data());
  add("optimizer/encoder.weight/exp_avg", DType::f32, {3, 4}, values.data());
  add("optimizer/encoder.weight/step", DType::i64, {}, &count);
  state.documents["model"] =
      R"({"aliases":{"decoder.weight":"encoder.weight","a.first":"encoder.weight"},"quantized":{}})";
  state.documents["optimizer"] =
      R"({"type":"AdamW","param_groups":[{"params":["bias","encoder.weight"],"lr":0.25,)"
      R"("betas":[0.9,0.95],"amsgrad":false}]})";
  state.documents["context"] = R"({"epoch":3,"global_step":12,"metrics":{}})";
  state.documents["scheduler"] = R"({"kind":"torch","step_count":3})";
  SaveOptions options;
  options.durable = false;
  Saver(world(), options).save(path, state);
  return open_checkpoint(world(), path);
}

TEST(Convert, AContainerComesBackFromEveryFormat) {
  const fs::path dir = scratch();
  const Manifest container = trained(dir / "a.h5");
  for (const auto& [to, name] :
       {std::pair(TargetFormat::torch, "a.pt"), std::pair(TargetFormat::lightning, "a.ckpt"),
        std::pair(TargetFormat::safetensors, "a.safetensors"),
        std::pair(TargetFormat::safetensors, "shards/model.safetensors.index.json")}) {
    SCOPED_TRACE(name);
    const bool sharded = fs::path(name).has_parent_path();
    ConvertOptions options;
    if (to == TargetFormat::safetensors) options.select.regex = "^(?!.*c(128|32)$)";
    const Manifest some = convert(container, dir / "some.h5", TargetFormat::cairn, options);
    ConvertOptions cut;
    if (sharded) cut.shard_bytes = 64;
    const Manifest other = convert(some, dir / name, to, cut);
    EXPECT_EQ(other.files.size() > 3, sharded);
    const Manifest back = convert(other, dir / "back.h5", TargetFormat::cairn);
    EXPECT_EQ(contents_of(back), contents_of(some));
    EXPECT_EQ(state_documents(back), state_documents(container));
    EXPECT_EQ(back.commit.step, 12U);
  }
}

TEST(Convert, TiedWeightsAreOneStorageByAllTheirNames) {
  const fs::path dir = scratch();
  const Manifest file = convert(trained(dir / "a.h5"), dir / "a.pt", TargetFormat::torch);
  const TensorEntry* weight = file.find("model/encoder.weight");
  ASSERT_NE(weight, nullptr);
  for (const char* alias : {"model/decoder.weight", "model/a.first"}) {
    const TensorEntry* tied = file.find(alias);
    ASSERT_NE(tied, nullptr);
    EXPECT_EQ(tied->offset, weight->offset);
  }
  EXPECT_EQ(weight->offset % 64, 0U);
  const Json aliases = Json::parse(file.documents.at("aliases"));
  ASSERT_EQ(aliases.size(), 1U);
  EXPECT_EQ(aliases[0], Json({"model/a.first", "model/decoder.weight", "model/encoder.weight"}));
  EXPECT_TRUE(verify_tensors(world(), file).defects.empty());
  EXPECT_EQ(verify_tensors(world(), file).unchecked, 0U);
}

TEST(Convert, LightningFindsItsKeys) {
  const fs::path dir = scratch();
  const Manifest file = convert(trained(dir / "a.h5"), dir / "a.ckpt", TargetFormat::lightning);
  const Json training = Json::parse(file.documents.at("training"));
  EXPECT_EQ(training.at("kind"), "lightning");
  EXPECT_EQ(training.at("epoch"), 3);
  EXPECT_EQ(training.at("global_step"), 12);
  EXPECT_EQ(training.at("lr_schedulers").at(0), Json({{"last_epoch", 3}, {"_step_count", 4}}));
  const Json& loop = training.at("loops").at("fit_loop");
  EXPECT_EQ(loop.at("epoch_progress").at("current").at("completed"), 3);
  EXPECT_EQ(loop.at("epoch_loop.automatic_optimization.optim_progress")
                .at("optimizer")
                .at("step")
                .at("total")
                .at("completed"),
            12);
  const Json optimizers = Json::parse(file.documents.at("optimizers"));
  EXPECT_EQ(optimizers.at(0).at("parameters"), Json({"bias", "encoder.weight"}));
  EXPECT_EQ(optimizers.at(0).at("param_groups").at(0).at("lr"), 0.25);
  EXPECT_NE(file.find("optimizer_states/0/state/1/exp_avg"), nullptr);
  EXPECT_NE(file.find("state_dict/decoder.weight"), nullptr);
}

TEST(Convert, ProgressGoesOnFromShardToShard) {
  const fs::path dir = scratch();
  const Manifest container = trained(dir / "a.h5");
  ConvertOptions options;
  options.select.regex = "^(?!.*c(128|32)$)";
  options.shard_bytes = 64;
  std::uint64_t last = 0;
  std::set<std::uint64_t> totals;
  options.progress = [&](std::uint64_t done, std::uint64_t total) {
    EXPECT_GT(done, last);
    last = done;
    totals.insert(total);
  };
  const fs::path target = dir / "sharded" / "model.safetensors.index.json";
  const Manifest sharded = convert(container, target, TargetFormat::safetensors, options);
  ASSERT_GT(sharded.files.size(), 2U);
  EXPECT_EQ(totals, std::set<std::uint64_t>{last});  // every rank has a share of so many bytes
  std::uint64_t bytes = 0;
  for (const TensorEntry& tensor : sharded.tensors) bytes += tensor.bytes();
  std::uint64_t written[] = {last};
  world().all_reduce_sum(written);
  EXPECT_EQ(written[0], bytes);
}

TEST(Convert, AFailureLeavesNothing) {
  const fs::path dir = scratch();
  const Manifest container = trained(dir / "a.h5");
  for (const char* point : {"preflight.write", "move.write", "commit.write", "publish"}) {
    SCOPED_TRACE(point);
    const int rank = std::string(point) == "move.write" ? world().size() - 1 : 0;
    const ScopedFault fault(point + (":" + std::to_string(rank) + ":error"));
    expect_same_error(Errc::io, [&] { convert(container, dir / "a.pt", TargetFormat::torch); });
    world().all_equal(0);
    EXPECT_EQ(std::distance(fs::directory_iterator(dir), fs::directory_iterator()), 1);
  }
}

/// Files of the corpus that cairn reads, in folders of `format`; none where there is no corpus.
std::vector<fs::path> corpus(const std::set<std::string>& folders) {
  const fs::path root = corpus_root();
  std::vector<fs::path> files;
  std::ifstream text(root / "MANIFEST.json");
  if (!text) return files;
  const Json manifest = Json::parse(text);
  for (const Json& entry : manifest.at("entries")) {
    const std::string path = entry.at("path");
    const bool wanted = folders.contains(path.substr(0, path.find('/'))) &&
                        entry.at("expect") == "load" && entry.at("kind") == "file" &&
                        entry.value("also_accept", Json::array()).empty();  // cairn may refuse it
    if (wanted) files.push_back(root / path);
  }
  return files;
}

Json paths_of(const Manifest& manifest) {
  Json paths = Json::array();
  for (const TensorEntry& tensor : manifest.tensors) {
    Json path = Json::array();
    for (const PathKey& key : tensor.path) {
      std::visit([&](const auto& value) { path.push_back(value); }, key);
    }
    paths.push_back(std::move(path));
  }
  return paths;
}

/// Values by path, but for those that become something else: arrays, sets, paths.
std::map<std::string, Json> plain_values(const Manifest& manifest) {
  const std::set<std::string> kept{"none", "bool", "int", "float", "str", "list", "tuple", "dict"};
  std::map<std::string, Json> values;
  for (const Json& object : Json::parse(manifest.documents.at("objects"))) {
    if (kept.contains(object.at("type"))) values[object.at("path").dump()] = object;
  }
  return values;
}

/// The first file has no path that the second one lacks.
void expect_all_values(const Manifest& source, const Manifest& target) {
  const auto found = plain_values(target);
  for (const auto& [path, value] : plain_values(source)) {
    const auto other = found.find(path);
    if (other == found.end()) {
      ADD_FAILURE() << "no " << path;
    } else {
      EXPECT_EQ(other->second, value) << path;
    }
  }
}

TEST(Convert, PyTorchsFilesComeBackWithTheirTree) {
  const auto files = corpus({"torch", "training", "lightning", "torch-legacy"});
  if (files.empty()) GTEST_SKIP() << "NOT TESTED: no corpus of checkpoints; set CAIRN_CORPUS";
  const fs::path dir = scratch();
  for (const fs::path& path : files) {
    SCOPED_TRACE(path);
    const Manifest source = open_checkpoint(world(), path);
    if (TensorNames(source.tensors).duplicate()) {  // a text and a number as keys
      const Manifest direct = convert(source, dir / "direct.pt", TargetFormat::torch);
      EXPECT_EQ(paths_of(direct).size(), source.tensors.size());
      expect_all_values(source, direct);
      continue;
    }
    const auto contents = contents_of(source);
    const Manifest direct = convert(source, dir / "direct.pt", TargetFormat::torch);
    const auto same = contents_of(direct);
    const Json arrays = Json::parse(source.documents.at("arrays"));  // which have become tensors
    EXPECT_EQ(same.size(), contents.size() + arrays.size());
    EXPECT_EQ(Json::parse(direct.documents.at("aliases")),
              Json::parse(source.documents.at("aliases")));
    expect_all_values(source, direct);
    const Manifest container = convert(source, dir / "a.h5", TargetFormat::cairn);
    const Manifest back = convert(container, dir / "back.pt", TargetFormat::torch);
    expect_all_values(source, back);
    const auto found = contents_of(back);
    for (const auto& [name, content] : contents) {
      ASSERT_TRUE(found.contains(name)) << name;
      EXPECT_EQ(found.at(name), content) << name;
      EXPECT_EQ(same.at(name), content) << name;
    }
    EXPECT_EQ(paths_of(back), paths_of(direct));
  }
}

TEST(Convert, AveragesStayBesideTheWeightsAndCanBeTakenInTheirPlace) {
  const auto dir = scratch();
  const std::vector<float> raw(6, 1);
  const std::vector<float> averaged(6, 2);
  StateView state;
  state.step = 3;
  // As a WeightAverage that was added as "ema" saves them.
  for (const auto& [name, values] : {std::pair("model/w", &raw), {"ema/w", &averaged}}) {
    state.tensors.push_back({name, DType::f32, Placement::replicated({2, 3}),
                             reinterpret_cast<const std::byte*>(values->data())});
  }
  SaveOptions save;
  save.durable = false;
  Saver(world(), save).save(dir / "run.h5", state);
  const Manifest source = open_checkpoint(world(), dir / "run.h5");
  const auto value_of = [](const Manifest& manifest, const std::string& name) {
    float value = 0;
    std::memcpy(&value, contents_of(manifest).at(name).bytes.data(), sizeof value);
    return value;
  };
  const Manifest all = convert(source, dir / "all.safetensors", TargetFormat::safetensors);
  EXPECT_EQ(all.tensors.size(), 2U);
  EXPECT_EQ(value_of(all, "w"), 1) << "plain names are those of the raw weights";
  EXPECT_EQ(value_of(all, "ema/w"), 2);
  ConvertOptions only;
  only.weights_only = true;
  const Manifest weights =
      convert(source, dir / "weights.safetensors", TargetFormat::safetensors, only);
  EXPECT_EQ(weights.tensors.size(), 1U);
  EXPECT_EQ(value_of(weights, "w"), 1);
  ConvertOptions averages;
  averages.select.regex = "^ema/";
  averages.rename = {{"ema/", "model/"}};
  const Manifest taken =
      convert(source, dir / "averaged.safetensors", TargetFormat::safetensors, averages);
  EXPECT_EQ(taken.tensors.size(), 1U);
  EXPECT_EQ(value_of(taken, "w"), 2);
}

}  // namespace
}  // namespace cairn
