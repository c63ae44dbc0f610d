// Format migrations: steps, their ways back, and histories. Pure: no file is read or written. The
// ten kinds of step are those of the format migrations that legacy checkpoints went through.
#include "support/migrations.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "pipeline/migrations/pattern.hpp"
#include "pipeline/migrations/run.hpp"

namespace cairn::detail::migrations {
namespace {

// ---- the ten kinds

TEST(Kinds, TheFirstDoesNothingAndIsNoted) {
  const Manifest manifest = of_model({"a"});
  const Migrated migrated = migrate_forward(
      manifest, {parse_migration("version: 0.1\n", "1_initial", "x")}, "", no_bytes(), "now");
  EXPECT_EQ(names_of(migrated.manifest), names_of(manifest));
  EXPECT_EQ(document(migrated.manifest, "migrations")["history"][0]["name"], "1_initial");
  EXPECT_EQ(document(migrated.manifest, "migrations")["history"][0]["when"], "now");
  EXPECT_TRUE(migrated.manifest.tensors[0].extents[0].digest);
  expect_way_back(manifest, migrated);
  EXPECT_FALSE(migrate_forward(migrated.manifest,
                               {parse_migration("version: 0.1\n", "1_initial", "x")}, "",
                               no_bytes(), "later")
                   .is_changed());
}

TEST(Kinds, AModuleIsDeletedAndClassesAreRenamed) {
  Manifest manifest = of_model({"a"});
  manifest.documents["opaque"] =
      R"([{"path":["x"],"class":"anemoi.training.schemas.datamodule.Old"},)"
      R"({"path":["y"],"class":"anemoi.training.schemas.hardware.FilesSchema"},)"
      R"({"path":["z"],"class":"anemoi.training.schemas.hardware.PathsSchema"}])";
  const Migrated migrated = forward(manifest, R"(
  - {type: drop_class, names: [anemoi.training.schemas.datamodule]}
  - type: rename_class
    names:
      anemoi.training.schemas.hardware: anemoi.training.schemas.system
      anemoi.training.schemas.hardware.FilesSchema: anemoi.training.schemas.system.InputSchema
)");
  const Json opaque = document(migrated.manifest, "opaque");
  ASSERT_EQ(opaque.size(), 2U);
  EXPECT_EQ(opaque[0]["class"], "anemoi.training.schemas.system.InputSchema");
  EXPECT_EQ(opaque[1]["class"], "anemoi.training.schemas.system.PathsSchema");
  expect_way_back(manifest, migrated);
}

TEST(Kinds, ChunksBecomeLayersByTheConfiguration) {
  Manifest manifest = container({{"model/m.proc.0.blocks.0.w", {2}},
                                 {"model/m.proc.0.blocks.1.w", {2}},
                                 {"model/m.proc.1.blocks.0.w", {2}},
                                 {"model/m.proc.1.blocks.1.w", {2}},
                                 {"optimizer/m.proc.1.blocks.1.w/exp_avg", {2}}});
  manifest.documents["training"] = R"({"config":{"model":{"num_layers":4,"num_chunks":2}}})";
  manifest.documents["optimizer"] =
      R"({"type":"Adam","param_groups":[{"lr":1.0,"params":["m.proc.1.blocks.1.w"]}]})";
  const std::string steps = R"(
  - type: rename
    names: {"*.proc.{c}.blocks.{b}": "*.proc.{c * (layers / chunks) + b}"}
    values: {layers: training.config.model.num_layers, chunks: training.config.model.num_chunks}
)";
  const Migrated migrated = forward(manifest, steps);
  EXPECT_EQ(names_of(migrated.manifest),
            (std::vector<std::string>{"model/m.proc.0.w", "model/m.proc.1.w", "model/m.proc.2.w",
                                      "model/m.proc.3.w", "optimizer/m.proc.3.w/exp_avg"}));
  EXPECT_EQ(document(migrated.manifest, "optimizer")["param_groups"][0]["params"][0], "m.proc.3.w");
  expect_way_back(manifest, migrated);
  manifest.documents["training"] = R"({"config":{"model":{"num_layers":5,"num_chunks":2}}})";
  expect_error(Errc::mismatch, "5 / 2 has a rest", [&] { forward(manifest, steps); });
  manifest.documents.erase("training");
  expect_error(Errc::not_found, "'training.config.model.num_layers' (layers) is not in",
               [&] { forward(manifest, steps); });
}

TEST(Kinds, AMapperMovesUnderAProviderAndABufferGoes) {
  const Manifest manifest = of_model({"m.decoder.trainable.trainable", "m.encoder.edge_inc",
                                      "m.encoder.trainable.trainable", "m.encoder.w"});
  const std::string move = R"(
  - type: rename
    names:
      m.encoder.trainable: m.encoder_graph_provider.trainable
      m.decoder.trainable: m.decoder_graph_provider.trainable
)";
  expect_way_back(manifest, forward(manifest, move));
  const Migrated migrated = forward(manifest, move + "  - {type: drop, names: ['*.edge_inc']}\n");
  EXPECT_EQ(names_of(migrated.manifest),
            (std::vector<std::string>{"model/m.decoder_graph_provider.trainable.trainable",
                                      "model/m.encoder.w",
                                      "model/m.encoder_graph_provider.trainable.trainable"}));
  expect_error(Errc::unsupported, "1_test.yaml:8: 'steps[1]' (drop): it drops 'm.encoder.edge_inc'",
               [&] { migrate_back(migrated.manifest, "", no_bytes()); });
}

TEST(Kinds, AnotherLevelInNamesAndInDocuments) {
  Manifest manifest = of_model({"m.encoder.w", "pre_processors.p.mul"});
  manifest.documents["training"] = R"({"statistics":{"mean":[1,2]},"kind":"lightning"})";
  const Migrated migrated = forward(manifest, R"(
  - {type: wrap, below: [pre_processors, "*.encoder"], segment: data}
  - {type: wrap_value, at: training.statistics, key: data}
  - {type: wrap_value, at: training.tendencies, key: data, optional: true}
)");
  EXPECT_EQ(
      names_of(migrated.manifest),
      (std::vector<std::string>{"model/m.encoder.data.w", "model/pre_processors.data.p.mul"}));
  EXPECT_EQ(document(migrated.manifest, "training")["statistics"]["data"]["mean"][1], 2);
  expect_way_back(manifest, migrated);
  const Migrated again = migrate_forward(migrated.manifest,
                                         {migration(""), migration(R"(
  - {type: unwrap, below: [pre_processors, "*.encoder"], segment: data}
  - {type: unwrap_value, at: training.statistics, key: data}
)",
                                                                   "2_back")},
                                         "2_back", no_bytes(), "now");
  EXPECT_EQ(names_of(again.manifest), names_of(manifest));
  EXPECT_EQ(again.manifest.documents.at("training"), manifest.documents.at("training"));
}

TEST(Kinds, EqualTensorsBecomeOne) {
  Manifest manifest = of_model({"n.data.latlons_hidden", "n.other.latlons_hidden", "z"});
  manifest.tensors[1].offset = manifest.tensors[1].extents[0].offset = 1000;  // equal, by no_bytes
  const std::string steps = R"(
  - {type: unite, names: ["n.*.latlons_hidden"], into: n.latlons_hidden}
)";
  const Migrated migrated = forward(manifest, steps);
  EXPECT_EQ(names_of(migrated.manifest),
            (std::vector<std::string>{"model/n.latlons_hidden", "model/z"}));
  expect_way_back(manifest, migrated);
  manifest.tensors[1].offset = 2000;
  expect_error(Errc::mismatch, "differ", [&] { forward(manifest, steps); });
}

TEST(Kinds, AKeyOfTheConfigurationGoesAndOneIsSet) {
  Manifest manifest = of_model({"a"});
  manifest.documents["training"] =
      R"({"hyper_parameters":{"config":{"training":{"swa":{"enabled":true},"lr":0.1}}}})";
  manifest.documents["objects"] =
      R"([{"path":["hyper_parameters","config","training","swa","enabled"],"type":"bool","value":true},)"
      R"({"path":["epoch"],"type":"int","value":3}])";
  const Migrated migrated = forward(manifest, R"(
  - {type: delete, at: training.hyper_parameters.config.training.swa}
  - {type: set, at: training.hyper_parameters.config.training.weight_averaging, value: null}
  - {type: set, at: training.note, value: {text: "12", number: 12, list: [1.5, no]}}
)");
  const Json config = document(migrated.manifest, "training")["hyper_parameters"]["config"];
  EXPECT_EQ(config["training"].dump(), R"({"lr":0.1,"weight_averaging":null})");
  const Json note = document(migrated.manifest, "training")["note"];
  EXPECT_EQ(note.dump(), R"({"text":"12","number":12,"list":[1.5,"no"]})");
  const Json objects = document(migrated.manifest, "objects");  // what a .ckpt is written from
  EXPECT_EQ(objects[0]["path"][0], "epoch");
  EXPECT_EQ(
      objects[1].dump(),
      R"({"path":["hyper_parameters","config","training","weight_averaging"],"type":"none","value":null})");
  EXPECT_EQ(objects.size(), 6U);
  expect_way_back(manifest, migrated);
}

TEST(Kinds, ASegmentAtAnyDepth) {
  const Manifest manifest =
      of_model({"p.0.node_dst_mlp.0.w", "p.0.node_src_mlp.0.w", "p.1.other.w"});
  for (const std::string steps :
       {"  - {type: rename, names: {'*.node_dst_mlp': '*.node_dst_mlp.mlp', '*.node_src_mlp': "
        "'*.node_src_mlp.mlp'}}\n",
        "  - {type: rename_regex, from: '(\\.node_(dst|src)_mlp)\\.', to: '$1.mlp.', back: {from: "
        "'(\\.node_(dst|src)_mlp)\\.mlp\\.', to: '$1.'}}\n"}) {
    const Migrated migrated = forward(manifest, steps);
    EXPECT_EQ(names_of(migrated.manifest)[0], "model/p.0.node_dst_mlp.mlp.0.w");
    EXPECT_EQ(names_of(migrated.manifest)[1], "model/p.0.node_src_mlp.mlp.0.w");
    expect_way_back(manifest, migrated);
  }
  expect_error(Errc::mismatch, "'back' does not lead back", [&] {
    forward(manifest,
            "  - {type: rename_regex, from: 'node_(dst|src)', to: 'node', back: {from: "
            "node, to: node_dst}}\n");
  });
}

TEST(Kinds, RowsArePermutedAndTheLayoutNoted) {
  Manifest manifest = container({{"model/order", {4}},
                                 {"model/p.trainable", {4, 2}},
                                 {"optimizer/p.trainable/exp_avg", {4, 2}},
                                 {"optimizer/p.trainable/step", {}}});
  manifest.documents["graph"] = R"({"order":[2,0,3,1],"layout":1})";
  for (const std::string order :
       {"order: [2, 0, 3, 1]", "order_at: graph.order", "order_tensor: order"}) {
    const Migrated migrated =
        forward(manifest, "  - {type: permute, names: [p.trainable], " + order +
                              "}\n  - {type: set, at: graph.layout, value: 2}\n");
    for (const std::size_t t : {1U, 2U}) {
      const TensorEntry& moved = migrated.manifest.tensors[t];
      EXPECT_EQ(place_of(moved, {0, 1}), place_of(manifest.tensors[t], {2, 1}));
      EXPECT_EQ(place_of(moved, {3, 0}), place_of(manifest.tensors[t], {1, 0}));
      EXPECT_FALSE(moved.extents[0].digest);
    }
    EXPECT_EQ(migrated.lost_digests, (std::vector<std::size_t>{1, 2}));
    EXPECT_EQ(document(migrated.manifest, "graph")["layout"], 2);
    expect_way_back(manifest, migrated);
  }
  for (const std::string order : {"[0, 0, 1, 2]", "[0, 1, 2]", "[0, 1, 2, 4]"}) {
    expect_error(Errc::mismatch, "order", [&] {
      forward(manifest, "  - {type: permute, names: [p.trainable], order: " + order + "}\n");
    });
  }
}

// ---- shapes

Manifest attention() {
  Manifest manifest = container({{"model/a.b", {6}},
                                 {"model/a.qkv", {6, 4}},
                                 {"optimizer/a.qkv/exp_avg", {6, 4}},
                                 {"optimizer/a.qkv/step", {}}});
  manifest.documents["optimizer"] =
      R"({"type":"Adam","param_groups":[{"params":["a.b","a.qkv"]}]})";
  return manifest;
}

TEST(Shapes, AParameterIsDividedAlongAnyDimension) {
  const Manifest manifest = attention();
  const Migrated rows =
      forward(manifest, "  - {type: split, name: '*.qkv', into: ['*.q', '*.k', '*.v']}\n");
  EXPECT_EQ(names_of(rows.manifest).size(), 10U);
  EXPECT_EQ(document(rows.manifest, "optimizer")["param_groups"][0]["params"].dump(),
            R"(["a.b","a.q","a.k","a.v"])");
  const TensorEntry* k = rows.manifest.find("model/a.k");
  ASSERT_NE(k, nullptr);
  EXPECT_EQ(k->layout, Layout::contiguous);
  EXPECT_EQ(k->shape, (Shape{2, 4}));
  EXPECT_EQ(place_of(*k, {0, 0}), place_of(manifest.tensors[1], {2, 0}));
  EXPECT_TRUE(rows.manifest.find("optimizer/a.v/step")->extents[0].digest);
  expect_way_back(manifest, rows);
  const Migrated columns =
      forward(manifest, "  - {type: split, name: a.qkv, into: [x, y], dim: 1, sizes: [1, 3]}\n");
  const TensorEntry* y = columns.manifest.find("model/y");
  EXPECT_EQ(y->layout, Layout::pieces);
  EXPECT_EQ(place_of(*y, {5, 2}), place_of(manifest.tensors[1], {5, 3}));
  expect_way_back(manifest, columns);
}

TEST(Shapes, PartsBecomeOne) {
  Manifest manifest = container({{"model/a.k", {2, 3}},
                                 {"model/a.q", {2, 2}},
                                 {"optimizer/a.k/step", {}},
                                 {"optimizer/a.q/step", {}}});
  manifest.documents["optimizer"] = R"({"type":"Adam","param_groups":[{"params":["a.q","a.k"]}]})";
  manifest.tensors[3].offset = manifest.tensors[3].extents[0].offset =
      manifest.tensors[2].offset;  // equal
  const std::string steps = "  - {type: merge, names: ['*.q', '*.k'], into: '*.qk', dim: 1}\n";
  const Migrated migrated = forward(manifest, steps);
  const TensorEntry* whole = migrated.manifest.find("model/a.qk");
  ASSERT_NE(whole, nullptr);
  EXPECT_EQ(whole->shape, (Shape{2, 5}));
  EXPECT_EQ(place_of(*whole, {1, 4}), place_of(manifest.tensors[0], {1, 2}));
  EXPECT_EQ(document(migrated.manifest, "optimizer")["param_groups"][0]["params"].dump(),
            R"(["a.qk"])");
  expect_way_back(manifest, migrated);
  expect_error(Errc::mismatch, "differ in dtype or shape", [&] {
    forward(manifest, "  - {type: merge, names: ['*.q', '*.k'], into: '*.qk'}\n");
  });
  manifest.tensors[3].offset = 5000;
  expect_error(Errc::mismatch, "differ, and only one can stay", [&] { forward(manifest, steps); });
  manifest.documents["optimizer"] =
      R"({"type":"Adam","param_groups":[{"params":["a.q"]},{"params":["a.k"]}]})";
  manifest.tensors[3].offset = manifest.tensors[2].offset;
  expect_error(Errc::mismatch, "different groups", [&] { forward(manifest, steps); });
}

TEST(Shapes, ACastIsTakenBackWhereNoBitIsLost) {
  Manifest manifest = container({{"model/a", {2}}, {"model/b", {2}}, {"optimizer/a/exp_avg", {2}}});
  manifest.tensors[1].dtype = DType::bf16;
  const Migrated wider = forward(manifest, "  - {type: cast, names: [b], dtype: f32}\n");
  EXPECT_EQ(wider.casts, (std::map<std::string, DType>{{"model/b", DType::f32}}));
  expect_way_back(manifest, wider);
  const Migrated narrow = forward(manifest, "  - {type: cast, names: [a], dtype: bf16}\n");
  EXPECT_EQ(narrow.casts, (std::map<std::string, DType>{{"model/a", DType::bf16}}));
  expect_error(Errc::unsupported, "loses bits",
               [&] { migrate_back(narrow.manifest, "", no_bytes()); });
}

// Looking at all of them for each of them would take this test's time limit many times over.
TEST(Shapes, ManyParametersTakeOneLook) {
  constexpr int kMany = 10'000;
  std::vector<std::pair<std::string, Shape>> tensors;
  Json tree = Json::array();
  Json params = Json::array();
  for (int i = 0; i < kMany; ++i) {
    const std::string name = fmt::format("m.{:05}.qkv", i);
    tensors.push_back({"model/" + name, {6, 2}});
    tree.push_back({"model/" + name, {"model", name}});
    params.push_back(name);
  }
  Manifest manifest = container(tensors);
  manifest.documents["tree"] = tree.dump();
  manifest.documents["optimizer"] = Json{{"param_groups", {{{"params", params}}}}}.dump();
  const Migrated migrated = forward(manifest, R"(
  - {type: split, name: "*.qkv", into: ["*.q", "*.k", "*.v"]}
  - {type: permute, names: ["*.q"], order: [1, 0]}
  - {type: merge, names: ["*.q", "*.k"], into: "*.qk"}
  - {type: rename_regex, from: '\.v$', to: .value}
)");
  ASSERT_EQ(migrated.manifest.tensors.size(), 2U * kMany);
  const TensorEntry* qk = migrated.manifest.find("model/m.09999.qk");
  ASSERT_NE(qk, nullptr);
  EXPECT_EQ(place_of(*qk, {0, 1}), place_of(manifest.tensors[kMany - 1], {1, 1}));
  EXPECT_EQ(document(migrated.manifest, "tree").size(), 2U * kMany);
  expect_way_back(manifest, migrated);
}

// ---- names

TEST(Names, RulesOfAStepSeeTheNamesOfBefore) {
  const Manifest manifest = of_model({"a.w", "b.w", "c.w"});
  const Migrated swapped = forward(manifest, "  - {type: rename, names: {a: b, b: c, c: a}}\n");
  for (const TensorEntry& tensor : swapped.manifest.tensors) {
    const std::string before = tensor.name == "model/b.w"   ? "a"
                               : tensor.name == "model/c.w" ? "b"
                                                            : "c";
    EXPECT_EQ(tensor.offset, manifest.find("model/" + before + ".w")->offset);
    EXPECT_EQ(std::get<std::string>(tensor.path.at(0)), "model/" + before + ".w");
  }
  expect_way_back(manifest, swapped);
}

TEST(Names, WhatWouldBeTheSameIsAnError) {
  const Manifest manifest = of_model({"a.w", "b.w"});
  expect_error(Errc::mismatch, "1_test.yaml:3: 'steps[0]' (rename): 'a.w' and 'b.w' would both",
               [&] { forward(manifest, "  - {type: rename, names: {a: b}}\n"); });
  expect_error(Errc::mismatch, "would both be called 'x'",
               [&] { forward(manifest, "  - {type: rename_regex, from: '^.*$', to: x}\n"); });
  expect_error(Errc::not_found, "no parameter is called 'aa' (there are 'a.w'",
               [&] { forward(manifest, "  - {type: rename, names: {aa: c}}\n"); });
  EXPECT_EQ(
      names_of(forward(manifest, "  - {type: rename, names: {aa: c}, optional: true}\n").manifest),
      names_of(manifest));
  // A rename onto names that were there already leads back all the same.
  const Manifest more = of_model({"a.w", "b.v"});
  expect_way_back(more, forward(more, "  - {type: rename, names: {a: b}}\n"));
}

TEST(Names, TiedWeightsFollow) {
  Manifest manifest = of_model({"wte", "z"});
  manifest.documents["model"] = R"({"aliases":{"lm_head":"wte"},"quantized":{}})";
  const Migrated renamed =
      forward(manifest, "  - {type: rename, names: {wte: emb, lm_head: out}}\n");
  EXPECT_EQ(document(renamed.manifest, "model")["aliases"].dump(), R"({"out":"emb"})");
  expect_way_back(manifest, renamed);
  const Migrated dropped = forward(manifest, "  - {type: drop, names: [wte]}\n");
  EXPECT_EQ(names_of(dropped.manifest), (std::vector<std::string>{"model/lm_head", "model/z"}));
  EXPECT_EQ(document(dropped.manifest, "model")["aliases"].dump(), "{}");
  expect_way_back(manifest, dropped);
  expect_error(Errc::unsupported, "tied weights",
               [&] { forward(manifest, "  - {type: split, name: wte, into: [a, b]}\n"); });
  for (const std::string names : {"[lm_head]", "[wte, lm_head]"}) {
    const Migrated permuted =
        forward(manifest, "  - {type: permute, order: [1, 0, 3, 2], names: " + names + "}\n");
    EXPECT_EQ(place_of(*permuted.manifest.find("model/wte"), {0, 1}),
              place_of(*manifest.find("model/wte"), {1, 1}));
    expect_way_back(manifest, permuted);
  }
}

TEST(Names, ATreeOfPyTorchFollows) {
  Manifest manifest =
      container({{"model/a.w", {2}}, {"model/b.w", {2}}, {"optimizer/a.w/exp_avg", {2}}});
  manifest.documents["tree"] =
      R"([["model/a.w",["state_dict","a.w"]],["model/a.w",["state_dict","tied"]],)"
      R"(["optimizer/a.w/exp_avg",["optimizer_states",0,"state",0,"exp_avg"]]])";
  manifest.documents["model"] = R"({"aliases":{"tied":"a.w"},"quantized":{}})";
  manifest.documents["optimizers"] =
      R"([{"path":["optimizer_states",0],"param_groups":[{"params":[0]}],"parameters":["a.w"]}])";
  const Migrated migrated = forward(manifest, "  - {type: rename, names: {a: x, tied: other}}\n");
  EXPECT_EQ(document(migrated.manifest, "tree").dump(),
            R"([["model/x.w",["state_dict","x.w"]],["model/x.w",["state_dict","other"]],)"
            R"(["optimizer/x.w/exp_avg",["optimizer_states",0,"state",0,"exp_avg"]]])");
  EXPECT_EQ(document(migrated.manifest, "optimizers")[0]["parameters"][0], "x.w");
  expect_way_back(manifest, migrated);
  manifest.documents.erase("model");
  const Migrated dropped = forward(manifest, "  - {type: drop, names: [a.w]}\n");
  EXPECT_EQ(document(dropped.manifest, "optimizers")[0]["param_groups"][0]["params"].dump(), "[]");
  EXPECT_EQ(document(dropped.manifest, "tree").dump(), "[]");
}

// ---- patterns, files, histories

TEST(Patterns, Fit) {
  const NamePattern pattern("*.proc.{c}.blocks.{b}");
  EXPECT_TRUE(pattern.match("a.b.proc.12.blocks.3"));
  EXPECT_TRUE(pattern.match("a.proc.1.blocks.3.w"));
  EXPECT_FALSE(pattern.match_whole("a.proc.1.blocks.3.w"));
  EXPECT_FALSE(pattern.match("a.proc.1.blocks.3w"));
  EXPECT_FALSE(pattern.match("a.proc.01.blocks.3"));
  EXPECT_FALSE(pattern.match(".proc.1.blocks.3"));
  EXPECT_FALSE(NamePattern("a.b").match("a.bc"));
  const NameTemplate made("*.{(c+b) % 4 // 2}", pattern, {});
  EXPECT_EQ(made.fill(*pattern.match("x.proc.3.blocks.3.w")), "x.1");
  for (const char* bad : {"{c +}", "{d}", "{c c}", "{(c}", "*.*", "{}", ""}) {
    expect_error(Errc::usage, "", [&] { NameTemplate(bad, pattern, {}); });
  }
  expect_error(Errc::usage, "more than two", [] { NamePattern("*a*b*"); });
  expect_error(Errc::mismatch, "gives -1", [&] {
    NameTemplate("{c - b}", pattern, {}).fill(*pattern.match("x.proc.1.blocks.2"));
  });
}

TEST(Files, MistakesAreToldWithTheirPlace) {
  const auto refused = [](const std::string& yaml, const std::string& text) {
    expect_error(Errc::usage, text, [&] { parse_migration(yaml, "1_x", "1_x.yaml"); });
  };
  refused("steps: []\n", "needs a 'version'");
  refused("version: 1\nstep: []\n", "1_x.yaml:2: 'step' is unknown; did you mean 'steps'?");
  refused("version: 1\nsteps:\n  - {type: renam, names: {a: b}}\n", "did you mean 'rename'?");
  refused("version: 1\nsteps:\n  - {type: rename}\n", "1_x.yaml:3: ");
  refused("version: 1\nsteps:\n  - {type: rename, name: {a: b}}\n", "'steps[0].name'");
  refused("version: 1\nsteps:\n  - {type: set, at: a.b}\n", "needs a 'value'");
  refused("version: 1\nsteps:\n  - {type: set, at: migrations.x, value: 1}\n", "may change");
  refused("version: 1\nsteps:\n  - {type: rename, names: {'a.{b': c}}\n", "lacks a '}'");
  refused("version: 1\nsteps:\n  - {type: rename_regex, from: '(', to: b}\n",
          "can't be understood");
  refused("version: 1\nsteps:\n  - {type: permute, names: [a]}\n", "give one of 'order'");
  refused("version: 1\nsteps:\n  - {type: split, name: a, into: [b, c], sizes: [1]}\n",
          "1 sizes for 2 parts");
  refused("version: 1\nfinal: true\nsteps:\n  - {type: drop, names: [a]}\n", "no file ever gets");
  refused("a: [", "not valid YAML");
}

TEST(Files, ASignatureIsOfWhatAMigrationDoes) {
  const std::string a = "version: 1\nsteps: [{type: drop, names: [a]}]\n";
  const auto signature = [](const std::string& yaml) {
    return parse_migration(yaml, "1_x", "x").signature;
  };
  EXPECT_EQ(signature(a), signature("# text\ndescription: more\nversion: '1'\nsteps:\n  - type: "
                                    "drop\n    names:\n    - a\n"));
  EXPECT_NE(signature(a), signature("version: 1\nsteps: [{type: drop, names: [b]}]\n"));
  EXPECT_LT(compare_versions("0.9.1", "0.10"), 0);
  EXPECT_EQ(compare_versions("1", "1.0.0"), 0);
}

std::vector<Migration> three() {
  return {migration("  - {type: rename, names: {a: b}}\n", "1_first", "0.1"),
          migration("  - {type: rename, names: {b: c}}\n", "2_second", "0.2"),
          migration("  - {type: rename, names: {c: d}}\n", "3_third", "0.3")};
}

TEST(History, WhatIsMissingIsDoneOnce) {
  const Manifest manifest = of_model({"a"});
  const Migrated some = migrate_forward(manifest, three(), "0.2", no_bytes(), "now");
  EXPECT_EQ(names_of(some.manifest)[0], "model/c");
  EXPECT_EQ(some.report.size(), 2U);
  const Migrated rest = migrate_forward(some.manifest, three(), "", no_bytes(), "later");
  EXPECT_EQ(names_of(rest.manifest)[0], "model/d");
  EXPECT_EQ(rest.report.size(), 1U);
  EXPECT_FALSE(migrate_forward(rest.manifest, three(), "", no_bytes(), "now").is_changed());
  expect_error(Errc::usage, "--rollback takes it back",
               [&] { migrate_forward(rest.manifest, three(), "0.2", no_bytes(), "now"); });
  EXPECT_EQ(names_of(migrate_back(rest.manifest, "", no_bytes()).manifest)[0], "model/c");
  EXPECT_EQ(names_of(migrate_back(rest.manifest, "1_first", no_bytes()).manifest)[0], "model/b");
  const Migrated all = migrate_back(rest.manifest, "0", no_bytes());
  EXPECT_EQ(names_of(all.manifest)[0], "model/a");
  EXPECT_FALSE(all.manifest.documents.contains("migrations"));
  expect_error(Errc::usage, "no migration behind it",
               [&] { migrate_back(all.manifest, "", no_bytes()); });
}

TEST(History, WhatAProgramSavesNextHasTheSameAndNoWayBack) {
  const std::string step = "  - {type: rename, names: {a: b}}\n";
  EXPECT_EQ(history_of_next(of_model({"a.w"})), "");
  Manifest saved = of_model({"b.w"});
  saved.documents["migrations"] = history_of_next(forward(of_model({"a.w"}), step).manifest);
  EXPECT_FALSE(forward(saved, step).is_changed());
  expect_error(Errc::unsupported, "there is no older form of it",
               [&] { migrate_back(saved, "", no_bytes()); });
}

TEST(History, OthersAreRefusedAndChangesAreTold) {
  const Manifest manifest = of_model({"a"});
  const Migrated all = migrate_forward(manifest, three(), "", no_bytes(), "now");
  std::vector<Migration> fewer = three();
  fewer.pop_back();
  expect_error(Errc::unsupported, "'3_third' (version 0.3) behind it",
               [&] { migrate_forward(all.manifest, fewer, "", no_bytes(), "now"); });
  std::vector<Migration> changed = three();
  changed[0].signature = "other";
  const Migrated told = migrate_forward(all.manifest, changed, "", no_bytes(), "now");
  EXPECT_FALSE(told.is_changed());
  ASSERT_EQ(told.warnings.size(), 1U);
  EXPECT_NE(told.warnings[0].find("'1_first' was changed"), std::string::npos);
  std::vector<Migration> between = three();
  between.insert(between.begin() + 1, migration("", "15_late", "0.15"));
  EXPECT_NE(migrate_forward(all.manifest, between, "", no_bytes(), "now")
                .warnings.at(0)
                .find("'15_late' comes before '3_third'"),
            std::string::npos);
}

TEST(History, AFinalMigrationCannotBeCrossed) {
  std::vector<Migration> migrations = three();
  migrations.push_back(parse_migration("version: 1.0\nfinal: true\n", "4_final", "x"));
  const Manifest manifest = of_model({"a"});
  expect_error(Errc::unsupported, "the last version that can use it is 0.3; --to 3_third",
               [&] { migrate_forward(manifest, migrations, "", no_bytes(), "now"); });
  EXPECT_EQ(names_of(migrate_forward(manifest, migrations, "3_third", no_bytes(), "n").manifest)[0],
            "model/d");
  std::vector<Applied> history;
  for (const Migration& each : migrations) {
    history.push_back({each.name, each.version, each.signature, "then", Json()});
  }
  Manifest saved = of_model({"d"});
  saved.documents["migrations"] = history_text(history);
  EXPECT_FALSE(migrate_forward(saved, migrations, "", no_bytes(), "now").is_changed());
  expect_error(Errc::unsupported, "saved by a program that had it already",
               [&] { migrate_back(saved, "", no_bytes()); });
}

TEST(History, ABrokenOneIsAnError) {
  for (
      const std::string text :
      {"{", "[]", R"({"format":1})", R"({"format":1,"history":[{"name":3}]})",
       R"({"format":1,"history":[{"name":"x","version":"1","signature":"","when":"","undo":7}]})",
       R"({"format":1,"history":[{"name":"x","version":"1","signature":"","when":"","undo":{"tensors":[{"type":"split"}],"documents":{}}}]})",
       R"({"format":1,"history":[{"name":"x","version":"1","signature":"","when":"","undo":{"tensors":[{"type":"split","dim":0,"all":[{"whole":"a","parts":[],"sizes":[]}]}],"documents":{}}}]})",
       R"({"format":1,"history":[{"name":"x","version":"1","signature":"","when":"","undo":{"tensors":[{"type":"rename","names":{"q":"a"}}],"documents":{}}}]})",
       R"({"format":1,"history":[{"name":"x","version":"1","signature":"","when":"","undo":{"tensors":[],"documents":{"gone":{"patch":[{"op":"remove","path":"/x"}]}}}}]})"}) {
    Manifest manifest = of_model({"a"});
    manifest.documents["migrations"] = text;
    try {
      migrate_back(manifest, "", no_bytes());
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_NE(error.code(), Errc::internal) << text;
    }
  }
}

}  // namespace
}  // namespace cairn::detail::migrations
