// Checkpoints of other formats with a container's names and documents. No LibTorch.
#include "pipeline/foreign.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cairn/error.hpp"
#include "pipeline/load_plan.hpp"

namespace cairn::detail {
namespace {

using Json = nlohmann::json;

Manifest torch_file(const std::vector<std::vector<PathKey>>& paths) {
  Manifest manifest;
  manifest.format = "torch";
  manifest.files.push_back({"last.ckpt"});
  for (const auto& path : paths) {
    TensorEntry entry;
    entry.path = path;
    for (const PathKey& key : path) {
      if (!entry.name.empty()) entry.name += "/";
      const auto* text = std::get_if<std::string>(&key);
      entry.name += text != nullptr ? *text : std::to_string(std::get<std::int64_t>(key));
    }
    manifest.tensors.push_back(std::move(entry));
  }
  return manifest;
}

std::vector<std::string> names_of(const Manifest& manifest) {
  std::vector<std::string> names;
  for (const TensorEntry& tensor : manifest.tensors) names.push_back(tensor.name);
  return names;
}

std::vector<PathKey> state_of(std::int64_t number, const std::string& slot) {
  return {std::string("optimizer_states"), std::int64_t{0}, std::string("state"), number, slot};
}

Manifest lightning() {
  Manifest manifest = torch_file({{std::string("state_dict"), std::string("model.a")},
                                  {std::string("state_dict"), std::string("model.x/y")},
                                  {std::string("callbacks"), std::string("best")},
                                  state_of(0, "exp_avg"),
                                  state_of(7, "step")});
  manifest.documents["roles"] =
      R"({"model": ["state_dict"], "optimizer": ["optimizer_states", 0]})";
  manifest.documents["optimizers"] =
      R"([{"path": ["optimizer_states", 0], "parameters": ["model.x/y", "model.a"], "param_groups": [{"lr": 0.5, "params": [7]},)"
      R"( {"lr": 0.25, "params": [0]}]}])";
  manifest.documents["training"] =
      R"({"epoch": 3, "global_step": 30, "lr_schedulers": [{"last_epoch": 2}]})";
  manifest.documents["anemoi"] = R"({"metadata": {"run_id": "r", "uuid": "u"}})";
  return manifest;
}

TEST(Foreign, ALightningFileHasAContainersNamesAndDocuments) {
  const Manifest manifest = as_container(lightning());
  EXPECT_EQ(names_of(manifest), (std::vector<std::string>{
                                    "model/model.a", "model/model.x%2Fy", "other/callbacks%2Fbest",
                                    "optimizer/model.a/exp_avg", "optimizer/model.x%2Fy/step"}));
  const Json optimizer = Json::parse(manifest.documents.at("optimizer"));
  EXPECT_TRUE(optimizer.at("type").is_null());
  EXPECT_EQ(optimizer.at("param_groups").at(0).at("params"), Json({"model.x/y"}));
  EXPECT_EQ(optimizer.at("param_groups").at(1).at("params"), Json({"model.a"}));
  const Json context = Json::parse(manifest.documents.at("context"));
  EXPECT_EQ(context.at("epoch"), 3);
  EXPECT_EQ(context.at("global_step"), 30);
  EXPECT_EQ(Json::parse(manifest.documents.at("scheduler")).at("step_count"), 3);
  EXPECT_EQ(Json::parse(manifest.documents.at("lineage")).at("uuid"), "u");
}

/// The same file as a conversion leaves it.
Manifest converted() {
  Manifest manifest = lightning();
  manifest.format = "cairn";
  const std::vector<std::string> names{"model/model.a", "model/model.x%2Fy",
                                       "model/callbacks%2Fbest", "optimizer/model.a/exp_avg",
                                       "optimizer/model.x%2Fy/step"};
  Json tree = Json::array();
  for (std::size_t t = 0; t < names.size(); ++t) {
    TensorEntry& tensor = manifest.tensors.all()[t];
    Json path = Json::array();
    for (const PathKey& key : tensor.path) {
      std::visit([&](const auto& value) { path.push_back(value); }, key);
    }
    tree.push_back({names[t], path});
    tensor.name = names[t];
    tensor.path.clear();
  }
  manifest.documents["tree"] = tree.dump();
  return manifest;
}

TEST(Foreign, AConvertedFileIsToldAsTheFileItself) {
  const Manifest file = as_container(lightning());
  const Manifest manifest = as_container(converted());
  for (const char* name : {"context", "optimizer", "scheduler", "lineage"}) {
    EXPECT_EQ(manifest.documents.at(name), file.documents.at(name)) << name;
  }
  std::vector<std::string> names = names_of(file);
  names[2] = "other/model%2Fcallbacks%252Fbest";
  EXPECT_EQ(names_of(manifest), names);
  EXPECT_EQ(wrapper_prefixes(manifest), std::vector<std::string>{"model."});

  // What a trainer of cairn's saved says all that itself.
  Manifest own = converted();
  own.documents.erase("training");
  own.documents["context"] = R"({"epoch": 9})";
  own = as_container(std::move(own));
  EXPECT_EQ(own.documents.at("context"), R"({"epoch": 9})");
  EXPECT_FALSE(own.documents.contains("optimizer"));
  EXPECT_EQ(own.tensors[2].name, "model/callbacks%2Fbest");
  EXPECT_TRUE(wrapper_prefixes(own).empty());
}

TEST(Foreign, AContainerWithoutDocumentsTellsItsOptimizerByNames) {
  Manifest manifest = torch_file({{}, {}});
  manifest.format = "cairn";
  manifest.tensors.all()[0].name = "model/a";
  manifest.tensors.all()[1].name = "optimizer/a/exp_avg";
  manifest = as_container(std::move(manifest));
  const Json optimizer = Json::parse(manifest.documents.at("optimizer"));
  EXPECT_EQ(optimizer.at("parameters"), Json({"a"}));
}

TEST(Foreign, OfSeveralOptimizersTheFirstCounts) {
  Manifest manifest = lightning();
  TensorEntry other;
  other.path = {std::string("optimizer_states"), std::int64_t{1}, std::string("state"),
                std::int64_t{0}, std::string("exp_avg")};
  other.name = "optimizer_states/1/state/0/exp_avg";
  manifest.tensors.push_back(other);
  Json optimizers = Json::parse(manifest.documents.at("optimizers"));
  optimizers.push_back({{"path", {"optimizer_states", 1}},
                        {"parameters", {"critic"}},
                        {"param_groups", Json::array({{{"params", {0}}}})}});
  manifest.documents["optimizers"] = optimizers.dump();
  manifest = as_container(std::move(manifest));
  EXPECT_EQ(manifest.tensors[3].name, "optimizer/model.a/exp_avg");
  EXPECT_TRUE(manifest.tensors[5].name.starts_with("other/")) << manifest.tensors[5].name;
}

TEST(Foreign, NumbersThatNobodyCanNameAreNotGuessed) {
  Manifest manifest = lightning();
  manifest.documents["optimizers"] = R"([{"parameters": null, "param_groups": [{"params": [0]}]}])";
  manifest = as_container(std::move(manifest));
  EXPECT_TRUE(manifest.tensors[3].name.starts_with("other/"));
  EXPECT_TRUE(Json::parse(manifest.documents.at("optimizer")).contains("unusable"));
}

TEST(Foreign, DocumentsThatSayOtherThingsThanExpectedAreNoError) {
  for (const std::string text :
       {"3", "[]", "null", R"({"epoch": -1, "global_step": "7"})", R"({"lr_schedulers": [3]})"}) {
    Manifest manifest = torch_file({{std::string("a")}});
    for (const char* name : {"roles", "optimizers", "training", "anemoi"}) {
      manifest.documents[name] = text;
    }
    manifest = as_container(std::move(manifest));
    EXPECT_EQ(manifest.tensors[0].name, "model/a") << text;
    EXPECT_FALSE(manifest.documents.contains("context")) << text;
    EXPECT_FALSE(manifest.documents.contains("scheduler")) << text;
  }
}

TEST(Foreign, TwoTensorsOfOneNameAreRefused) {
  Manifest manifest = torch_file(
      {{std::string("state_dict"), std::string("a")}, {std::string("model"), std::string("a")}});
  EXPECT_THROW(as_container(std::move(manifest)), Error);
}

TEST(Foreign, SafetensorsOfCairnComeBackAsTheyWere) {
  Manifest manifest = torch_file({{}, {}});
  manifest.tensors[0].name = "a.weight";
  manifest.tensors[1].name = "optimizer/a.weight/exp_avg";
  manifest.documents["__metadata__"] =
      R"({"cairn": "1", "cairn.step": "12", "cairn.document.context": "{\"epoch\": 4}"})";
  manifest = as_container(std::move(manifest));
  EXPECT_EQ(names_of(manifest),
            (std::vector<std::string>{"model/a.weight", "optimizer/a.weight/exp_avg"}));
  EXPECT_EQ(manifest.commit.step, 12U);
  EXPECT_EQ(manifest.documents.at("context"), R"({"epoch": 4})");
}

TEST(Wrappers, ArePrefixesThatNamesBeginWith) {
  Manifest manifest = torch_file({{std::string("model.module.a")},
                                  {std::string("model.encoder.b")},
                                  {std::string("other.model.c")},
                                  {std::string("module")}});
  manifest = as_container(std::move(manifest));
  EXPECT_EQ(wrapper_prefixes(manifest), (std::vector<std::string>{"model.", "model.module."}));
  EXPECT_EQ(count_matches(manifest, {"", "model.", "model.module."}, {"a", "encoder.b", "module"}),
            (std::vector<std::uint64_t>{1, 1, 1}));
  manifest.format = "cairn";
  manifest.documents["context"] = "{}";
  EXPECT_TRUE(wrapper_prefixes(manifest).empty()) << "a trainer's own names";
}

TEST(Wrappers, WhatLiesBesideTheModelIsSkipped) {
  Manifest manifest = torch_file({{std::string("module.a")}, {std::string("a")}});
  manifest = as_container(std::move(manifest));
  const CheckpointNames names(manifest, {}, "module.");
  EXPECT_EQ(names.find("model/a"), 0U);
  EXPECT_EQ(names.renamed("module.a"), "a");
  LoadingConfig loading;
  const LoadPlan plan = plan_load(manifest, names, {}, {{{"a"}, {}}}, loading);
  const LoadReport report = judge_load(manifest, names, plan.used, plan.notes, loading, false);
  EXPECT_EQ(report.loaded, std::vector<std::string>{"model/module.a"});
  ASSERT_EQ(report.skipped.size(), 1U);
  EXPECT_EQ(report.skipped[0].name, "model/a");
}

}  // namespace
}  // namespace cairn::detail
