// Format migrations of optimizers' state that a file of PyTorch's has by numbers. Pure.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "support/migrations.hpp"

namespace cairn::detail::migrations {
namespace {

/// Of PyTorch's optimizer in two groups, with names: `b` and `qkv` have state, `z` has none.
Manifest numbered() {
  Manifest manifest = container({{"model/b", {6}},
                                 {"model/qkv", {6, 4}},
                                 {"model/z", {2}},
                                 {"optimizer/b/exp_avg", {6}},
                                 {"optimizer/b/step", {}},
                                 {"optimizer/qkv/exp_avg", {6, 4}},
                                 {"optimizer/qkv/step", {}}});
  manifest.documents["tree"] =
      R"([["model/b",["model","b"]],["model/qkv",["model","qkv"]],["model/z",["model","z"]],)"
      R"(["optimizer/b/step",["opt","state",0,"step"]],)"
      R"(["optimizer/b/exp_avg",["opt","state",0,"exp_avg"]],)"
      R"(["optimizer/qkv/step",["opt","state",1,"step"]],)"
      R"(["optimizer/qkv/exp_avg",["opt","state",1,"exp_avg"]]])";
  manifest.documents["optimizers"] =
      R"([{"path":["opt"],"parameters":["b","qkv","z"],"names_from":"file","param_groups":)"
      R"([{"params":[0,1],"param_names":["b","qkv"]},{"params":[2],"param_names":["z"]}]}])";
  manifest.documents["objects"] =
      R"([{"path":["epoch"],"type":"int","value":1},)"
      R"({"path":["opt","state",0,"max"],"type":"none","value":null},)"
      R"({"path":["opt","state",1,"max"],"type":"none","value":null},)"
      R"({"path":["opt","param_groups",0,"params"],"type":"list","value":[0,1]},)"
      R"({"path":["opt","param_groups",0,"param_names"],"type":"list","value":["b","qkv"]},)"
      R"({"path":["opt","param_groups",1,"lr"],"type":"float","value":0.5},)"
      R"({"path":["opt","param_groups",1,"params",0],"type":"int","value":2}])";
  manifest.documents["containers"] =
      R"([{"path":["opt","state"],"kind":"dict"},{"path":["opt","state",1,"old"],"kind":"tuple"}])";
  return manifest;
}

TEST(Numbers, StateIsDividedAndJoinedAsItsParameterIs) {
  const Manifest manifest = numbered();
  const std::string split = "  - {type: split, name: qkv, into: [q, k, v]}\n";
  const Migrated migrated = forward(manifest, split);
  const Json optimizer = document(migrated.manifest, "optimizers")[0];
  EXPECT_EQ(optimizer["parameters"].dump(), R"(["b","q","k","v","z"])");
  EXPECT_EQ(optimizer["param_groups"].dump(),
            R"([{"params":[0,1,2,3],"param_names":["b","q","k","v"]},)"
            R"({"params":[4],"param_names":["z"]}])");
  std::map<std::string, std::string> paths;
  for (const Json& item : document(migrated.manifest, "tree")) {
    paths[item[0]] = item[1].dump();
  }
  EXPECT_EQ(paths.size(), 3U + 2 + 2 + 6);
  EXPECT_EQ(paths["optimizer/b/step"], R"(["opt","state",0,"step"])");
  EXPECT_EQ(paths["optimizer/q/step"], R"(["opt","state",1,"step"])");
  EXPECT_EQ(paths["optimizer/v/exp_avg"], R"(["opt","state",3,"exp_avg"])");
  EXPECT_EQ(paths["model/k"], R"(["model","k"])");
  EXPECT_EQ(place_of(*migrated.manifest.find("optimizer/k/exp_avg"), {0, 1}),
            place_of(*manifest.find("optimizer/qkv/exp_avg"), {2, 1}));
  std::map<std::string, std::string> values;
  for (const Json& item : document(migrated.manifest, "objects")) {
    values[item["path"].dump()] = item["value"].dump();
  }
  EXPECT_EQ(values.size(), 1U + 4 + 4);
  EXPECT_EQ(values[R"(["opt","param_groups",0,"params"])"], "[0,1,2,3]");
  EXPECT_EQ(values[R"(["opt","param_groups",0,"param_names"])"], R"(["b","q","k","v"])");
  EXPECT_EQ(values[R"(["opt","param_groups",1,"params"])"], "[4]");
  EXPECT_EQ(values[R"(["opt","state",3,"max"])"], "null");
  EXPECT_EQ(document(migrated.manifest, "containers").size(), 4U);
  expect_way_back(manifest, migrated);
  // Joined again, all is as it was; a list is one value then.
  const Migrated joined =
      forward(manifest, split + "  - {type: merge, names: [q, k, v], into: qkv}\n");
  for (const char* name : {"optimizers", "containers", "tree"}) {
    EXPECT_EQ(document(joined.manifest, name), document(manifest, name)) << name;
  }
  Json objects = document(manifest, "objects");
  objects[6] = document(joined.manifest, "objects")[6];
  EXPECT_EQ(objects[6].dump(),
            R"({"path":["opt","param_groups",1,"params"],"type":"list","value":[2]})");
  EXPECT_EQ(document(joined.manifest, "objects"), objects);
  expect_way_back(manifest, joined);
}

TEST(Numbers, ARenamedParameterKeepsItsNumberAndHasItsNewNameEverywhere) {
  const Manifest manifest = numbered();
  const Migrated migrated = forward(manifest, "  - {type: rename, names: {qkv: w}}\n");
  EXPECT_EQ(document(migrated.manifest, "objects")[3]["value"].dump(), "[0,1]");
  EXPECT_EQ(document(migrated.manifest, "objects")[4]["value"].dump(), R"(["b","w"])");
  EXPECT_EQ(document(migrated.manifest, "tree")[6].dump(),
            R"(["optimizer/w/exp_avg",["opt","state",1,"exp_avg"]])");
  expect_way_back(manifest, migrated);
}

TEST(Numbers, PartsThatDifferDoNotBecomeOne) {
  const std::string steps = "  - {type: merge, names: [b, z], into: w}\n";
  expect_error(Errc::mismatch, "not every part of 'optimizer/w/exp_avg'",
               [&] { forward(numbered(), steps); });
  Manifest manifest = container({{"model/b", {6}}, {"model/z", {2}}});
  const auto told = [&](const std::string& groups, const std::string& objects) {
    manifest.documents["tree"] = R"([["model/b",["model","b"]],["model/z",["model","z"]]])";
    manifest.documents["optimizers"] =
        R"([{"path":["opt"],"parameters":["b","z"],"param_groups":)" + groups + "}]";
    manifest.documents["objects"] = objects;
  };
  const std::string one = R"([{"params":[0,1]}])";
  const std::string first = R"([{"path":["opt","state",0,"step"],"type":"int","value":7})";
  told(one, first + "]");
  expect_error(Errc::mismatch, "not every part of", [&] { forward(manifest, steps); });
  told(one, first + R"(,{"path":["opt","state",1,"step"],"type":"int","value":8}])");
  expect_error(Errc::mismatch, "differ, and only one can stay: 7, 8",
               [&] { forward(manifest, steps); });
  told(one, first + R"(,{"path":["opt","state",1,"step"],"type":"int","value":7}])");
  const Migrated migrated = forward(manifest, steps);
  EXPECT_EQ(document(migrated.manifest, "objects").dump(), first + "]");
  told(R"([{"params":[0]},{"params":[1]}])", "[]");
  expect_error(Errc::mismatch, "different groups", [&] { forward(manifest, steps); });
}

TEST(Numbers, AnOptimizerMayKnowItsParametersByNames) {
  Manifest manifest = container({{"model/w", {4}}, {"optimizer/w/m", {4}}});
  manifest.documents["tree"] =
      R"([["model/w",["model","w"]],["optimizer/w/m",["optimizer","state","w","m"]]])";
  manifest.documents["optimizers"] =
      R"([{"path":["optimizer"],"parameters":null,"param_groups":[{"params":["w"]}]}])";
  const Migrated migrated = forward(manifest, "  - {type: split, name: w, into: [a, b]}\n");
  EXPECT_EQ(document(migrated.manifest, "optimizers")[0]["param_groups"].dump(),
            R"([{"params":["a","b"]}])");
  EXPECT_EQ(document(migrated.manifest, "tree")[3].dump(),
            R"(["optimizer/b/m",["optimizer","state","b","m"]])");
  expect_way_back(manifest, migrated);
}

TEST(Names, StateThatBelongsToNobodyKnownIsNotLeftBehind) {
  Manifest manifest = container(
      {{"model/a.w", {4, 2}}, {"model/b.w", {4, 2}}, {"other/optimizer%2Fstate%2F0%2Fm", {4, 2}}});
  manifest.documents["tree"] =
      R"([["model/a.w",["model","a.w"]],["model/b.w",["model","b.w"]],)"
      R"(["other/optimizer%2Fstate%2F0%2Fm",["optimizer","state",0,"m"]]])";
  const auto told = [&](const std::string& parameters) {
    manifest.documents["optimizers"] = R"([{"path":["optimizer"],"param_groups":[{"params":[0]}],)"
                                       R"("parameters":)" +
                                       parameters + "}]";
  };
  const std::vector<std::string> steps{"  - {type: permute, names: [a.w], order: [2, 0, 3, 1]}\n",
                                       "  - {type: split, name: a.w, into: [q, k]}\n",
                                       "  - {type: merge, names: [a.w, b.w], into: c}\n",
                                       "  - {type: drop, names: [a]}\n",
                                       "  - {type: unite, names: [a.w, b.w], into: c}\n"};
  // Not to be told; told, but the state has no name; and the names of another model.
  for (const std::string parameters : {"null", R"(["a.w"])", R"(["module.a.w"])"}) {
    told(parameters);
    for (const std::string& step : steps) {
      expect_error(Errc::unsupported, "the optimizer at [\"optimizer\"] has of 'a.w' would stay",
                   [&] { forward(manifest, step); });
    }
    expect_way_back(manifest, forward(manifest, "  - {type: rename, names: {a: x}}\n"));
  }
  // The state has a name, and the optimizer another model's.
  manifest.tensors[2].name = "optimizer/module.a.w/m";
  manifest.documents["tree"] = R"([["optimizer/module.a.w/m",["optimizer","state",0,"m"]]])";
  expect_error(Errc::unsupported, "has of 'a.w' would stay", [&] { forward(manifest, steps[0]); });
  // The way back of one that had no such state, in a file that has.
  Manifest back = forward(of_model({"a.w", "b.w"}), steps[0]).manifest;
  told("null");
  back.documents["tree"] = R"([["other/m",["optimizer","state",0,"m"]]])";
  back.documents["optimizers"] = manifest.documents["optimizers"];
  expect_error(Errc::unsupported, "has of 'a.w' would stay",
               [&] { migrate_back(back, "", no_bytes()); });
}

}  // namespace
}  // namespace cairn::detail::migrations
