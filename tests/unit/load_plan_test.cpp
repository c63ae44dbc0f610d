// Which tensors fill which: dotted paths, rename rules, and the strategies' rules. No LibTorch.
#include "pipeline/load_plan.hpp"

#include <gtest/gtest.h>

#include "cairn/error.hpp"
#include "pipeline/path_patterns.hpp"

namespace cairn::detail {
namespace {

Manifest manifest_of(const std::vector<std::pair<std::string, Shape>>& tensors) {
  Manifest manifest;
  manifest.format = "cairn";
  manifest.files.push_back({"run/step-00000001.h5"});
  for (const auto& [name, shape] : tensors) {
    TensorEntry entry;
    entry.name = name;
    entry.shape = shape;
    manifest.tensors.push_back(std::move(entry));
  }
  return manifest;
}

/// The text of the error, or "none".
template <class F>
std::string error_of(Errc code, F&& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.code()), to_string(code)) << error.what();
    return error.what();
  }
  return "none";
}

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(PathPatterns, TakeModulesAndAllBelow) {
  struct Case {
    std::string pattern, path;
    bool taken;
  };
  for (const Case& c : std::vector<Case>{{"encoder", "encoder", true},
                                         {"encoder", "encoder.0.weight", true},
                                         {"encoder", "encoder2.weight", false},
                                         {"encoder", "model.encoder.weight", false},
                                         {"encoder.weight", "encoder", false},
                                         {"processor.0", "processor.0.bias", true},
                                         {"processor.0", "processor.01.bias", false},
                                         {"processor.*.attn", "processor.3.attn.q", true},
                                         {"processor.*.attn", "processor.3.mlp.q", false},
                                         {"processor.*.attn", "processor.attn", false},
                                         {"layer?", "layer1.weight", true},
                                         {"layer?", "layer10.weight", false},
                                         {"l*r?", "layer1", true},
                                         {"*_proj", "q_proj.weight", true},
                                         {"**.bias", "bias", true},
                                         {"**.bias", "a.b.c.bias", true},
                                         {"**.bias", "a.b.c.weight", false},
                                         {"a.**.bias", "a.bias", true},
                                         {"a.**.bias", "b.x.bias", false},
                                         {"**.q.**.w", "x.q.y.z.w", true},
                                         {"*", "anything.at.all", true},
                                         {"", "encoder", false}}) {
    EXPECT_EQ(PathPatterns({c.pattern}).matches(c.path), c.taken) << c.pattern << " " << c.path;
  }
}

TEST(PathPatterns, StarsDoNotTakeForever) {
  std::string pattern, path;
  for (int i = 0; i < 200; ++i) {
    pattern += "**.a*a*a*b.";
    path += "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.";
  }
  EXPECT_FALSE(PathPatterns({pattern}).matches(path));
}

TEST(PathPatterns, WhatTakesNothingIsAnErrorWithNearNames) {
  const std::vector<std::string> paths{"encoder.0.weight", "decoder.weight"};
  const PathPatterns patterns({"decoder", "encodr.0"});
  EXPECT_EQ(patterns.hits(paths), (std::vector<std::uint64_t>{1, 0}));
  const auto text = error_of(Errc::not_found, [&] {
    require_hits(patterns, patterns.hits(paths), "freeze", "parameter", paths);
  });
  EXPECT_TRUE(holds(text, "freeze: the model has no parameter 'encodr.0'")) << text;
  EXPECT_TRUE(holds(text, "near names: 'encoder.0'")) << text;
}

TEST(CheckpointNames, RulesApplyInOrderToModelAndOptimizer) {
  const Manifest manifest = manifest_of({{"model/module.blocks.0.w", {2}},
                                         {"optimizer/module.blocks.0.w/exp_avg", {2}},
                                         {"model/module.we%2Fird", {2}},
                                         {"ranks/module.rng", {2}}});
  const CheckpointNames names(
      manifest,
      {{"module.", ""}, {"blocks\\.(\\d+)\\.", "layers.$1.", true}, {"never.", "", false}});
  EXPECT_EQ(names.find("model/layers.0.w"), 0U);
  EXPECT_EQ(names.find("optimizer/layers.0.w/exp_avg"), 1U);
  EXPECT_EQ(names.find("model/we%2Fird"), 2U);
  EXPECT_EQ(names.find("ranks/module.rng"), 3U);
  EXPECT_FALSE(names.contains("model/module.blocks.0.w"));
  EXPECT_EQ(names.renamed("module.blocks.7.w"), "layers.7.w");
  EXPECT_EQ(names.idle_rules(), std::vector<std::string>{"never."});
}

TEST(CheckpointNames, TwoTensorsOfOneNameAreAnError) {
  const Manifest manifest = manifest_of({{"model/a.w", {2}}, {"model/b.w", {2}}});
  const auto text = error_of(Errc::mismatch, [&] {
    const CheckpointNames names(manifest, {{"^[ab]\\.", "c.", true}});
  });
  EXPECT_TRUE(holds(text, "'model/a.w' and 'model/b.w'")) << text;
  EXPECT_TRUE(holds(text, "'model/c.w'")) << text;
}

TEST(CheckpointNames, ExpressionsAreBounded) {
  const Manifest manifest = manifest_of({{"model/a.w", {2}}});
  const auto with = [&](const std::string& from) {
    return error_of(Errc::usage, [&] {
      const CheckpointNames names(manifest, {{from, "", true}});
    });
  };
  EXPECT_TRUE(holds(with("((a{30}){30}){30}"), "repeats more than"));
  EXPECT_TRUE(holds(with(std::string(600, 'a')), "600 characters"));
  EXPECT_TRUE(holds(with("("), "is none that cairn takes"));
}

/// A checkpoint of an encoder, an old head and an optimizer, and what a model wants of it.
struct Fixture {
  Manifest manifest = manifest_of({{"model/encoder.w", {4, 3}},
                                   {"model/encoder.b", {4}},
                                   {"model/head.w", {10, 4}},
                                   {"model/old.w", {1}},
                                   {"optimizer/encoder.w/exp_avg", {4, 3}}});
  std::vector<WantedTensor> wanted{
      {{"encoder.w"}, {4, 3}}, {{"encoder.b"}, {4}}, {{"head.w"}, {7, 4}}, {{"new.w"}, {1}}};
  LoadingConfig loading;
  bool with_optimizer = false;

  LoadPlan plan() const {
    const CheckpointNames names(manifest, loading.rename);
    return plan_load(manifest, names, {}, wanted, loading);
  }
  LoadReport report() const {
    const CheckpointNames names(manifest, loading.rename);
    const LoadPlan plan = plan_load(manifest, names, {}, wanted, loading);
    return judge_load(manifest, names, plan.used, decode_notes(encode(plan.notes)), loading,
                      with_optimizer);
  }
};

LoadingConfig transfer() {
  LoadingConfig loading;
  loading.type = LoadingType::transfer_learning;
  loading.strict = false;
  return loading;
}

TEST(LoadPlan, TransferTakesWhatFits) {
  Fixture f;
  f.loading = transfer();
  const LoadReport report = f.report();
  EXPECT_EQ(report.loaded, (std::vector<std::string>{"model/encoder.w", "model/encoder.b"}));
  EXPECT_EQ(report.missing, std::vector<std::string>{"model/new.w"});
  EXPECT_EQ(report.unexpected, std::vector<std::string>{"model/old.w"});
  EXPECT_EQ(report.mismatched,
            (std::vector<ShapeMismatch>{{"model/head.w", Shape{10, 4}, Shape{7, 4}}}));
  EXPECT_DOUBLE_EQ(report.fraction_matched, 0.5);
  EXPECT_TRUE(f.plan().tensors[0].load);
  EXPECT_FALSE(f.plan().tensors[2].load);
}

TEST(LoadPlan, TransferRefusesWhatItIsToldTo) {
  Fixture f;
  f.loading = transfer();
  f.loading.skip_mismatched = false;
  EXPECT_TRUE(holds(error_of(Errc::mismatch, [&] { f.plan(); }), "[10, 4]"));
  f.loading = transfer();
  f.loading.min_match = 0.5;
  f.report();
  f.loading.min_match = 0.51;
  const auto few = error_of(Errc::mismatch, [&] { f.report(); });
  EXPECT_TRUE(holds(few, "fits 2 of the model's 4 tensors")) << few;
  f.loading.min_match = 0;
  f.wanted = {{{"other.w"}, {1}}};
  EXPECT_TRUE(holds(error_of(Errc::mismatch, [&] { f.report(); }), "nothing of"));
  f = Fixture();
  f.loading = transfer();
  f.loading.strict = true;
  const auto strict = error_of(Errc::mismatch, [&] { f.plan(); });
  EXPECT_TRUE(holds(strict, "lacks 'model/new.w'")) << strict;
}

TEST(LoadPlan, StrictTypesWantEqualNamesAndShapes) {
  for (const auto type :
       {LoadingType::warm_start, LoadingType::cold_start, LoadingType::weights_only}) {
    Fixture f;
    f.loading.type = type;
    EXPECT_TRUE(holds(error_of(Errc::mismatch, [&] { f.plan(); }), "lacks 'model/new.w'"));
    f.wanted.pop_back();
    EXPECT_TRUE(holds(error_of(Errc::mismatch, [&] { f.plan(); }), "'model/head.w' has shape"));
    f.wanted[2].shape = {10, 4};
    EXPECT_TRUE(holds(error_of(Errc::mismatch, [&] { f.report(); }), "holds 'model/old.w'"));
    f.loading.strict = false;
    const auto text = error_of(Errc::mismatch, [&] {
      EXPECT_EQ(f.report().unexpected, std::vector<std::string>{"model/old.w"});
    });
    EXPECT_EQ(text != "none", type == LoadingType::warm_start) << text;
  }
}

TEST(LoadPlan, ResetLayersAreNeitherMissingNorUnexpectedNorCounted) {
  Fixture f;
  f.loading.type = LoadingType::cold_start;
  f.loading.reset_layers = {"head", "new", "old"};
  const LoadReport report = f.report();
  EXPECT_EQ(report.loaded, (std::vector<std::string>{"model/encoder.w", "model/encoder.b"}));
  EXPECT_EQ(report.skipped, (std::vector<SkippedTensor>{{"model/head.w", "it is in reset_layers"},
                                                        {"model/new.w", "it is in reset_layers"},
                                                        {"model/old.w", "it is in reset_layers"}}));
  EXPECT_DOUBLE_EQ(report.fraction_matched, 1);
}

TEST(LoadPlan, OptimizersCountWhereOneIsGiven) {
  Fixture f;
  f.wanted = {
      {{"encoder.w"}, {4, 3}}, {{"encoder.b"}, {4}}, {{"head.w"}, {10, 4}}, {{"old.w"}, {1}}};
  EXPECT_TRUE(f.report().unexpected.empty());
  f.with_optimizer = true;
  const auto text = error_of(Errc::mismatch, [&] { f.report(); });
  EXPECT_TRUE(holds(text, "'optimizer/encoder.w/exp_avg'")) << text;
}

TEST(LoadPlan, AdaptersMayBeAbsentAndTheirAbsenceIsTold) {
  Fixture f;
  f.wanted = {{{"encoder.w"}, {4, 3}},
              {{"encoder.b"}, {4}},
              {{"head.w"}, {10, 4}},
              {{"old.w"}, {1}},
              {{"head.lora_A"}, {2, 4}, true}};
  EXPECT_EQ(f.report().skipped.at(0).name, "model/head.lora_A");
  f.wanted.pop_back();
  f.manifest.tensors[3].name = "model/head.lora_A";
  f.wanted.pop_back();
  EXPECT_TRUE(holds(error_of(Errc::mismatch, [&] { f.report(); }), "saved with LoRA adapters"));
}

TEST(LoadPlan, TiedNamesAndAliasesAreFound) {
  Fixture f;
  f.loading.type = LoadingType::weights_only;
  f.loading.strict = false;
  f.wanted = {{{"embedding.w", "old.w"}, {1}}, {{"tied.w"}, {4, 3}}, {{"encoder.w"}, {4, 3}}};
  const CheckpointNames names(f.manifest, {});
  const LoadPlan plan =
      plan_load(f.manifest, names, {{"tied.w", "encoder.w"}}, f.wanted, f.loading);
  EXPECT_EQ(plan.tensors[0].source, "old.w");
  EXPECT_EQ(plan.tensors[1].source, "encoder.w");
  EXPECT_TRUE(plan.tensors[1].load && plan.tensors[2].load);
}

TEST(LoadPlan, ATensorIsReshardedWhereAPieceIsNotStoredAsSuch) {
  using Kind = Placement::Kind;
  const Shape shape{4, 6};
  const auto stored = [&](Kind kind, const std::vector<Placement>& pieces) {
    TensorEntry tensor;
    tensor.shape = shape;
    tensor.placement = kind;
    for (const Placement& piece : pieces) {
      Extent& extent = tensor.extents.emplace_back();
      extent.flat = piece.kind == Kind::flat;
      extent.box = piece.box;
    }
    return tensor;
  };
  const auto whole = Placement::replicated(shape);
  const auto row = [&](int parts, int index) { return Placement::split(shape, 0, parts, index); };
  const auto flat = [&](int parts, int i) { return Placement::flat_split(shape, parts, i); };
  const auto column = Placement::split(shape, 1, 2, 0);
  // Of a replicated tensor, ranks write shares.
  const TensorEntry replicated = stored(Kind::replicated, {row(2, 0), row(2, 1)});
  const TensorEntry rows = stored(Kind::block, {row(2, 0), row(2, 1)});
  const TensorEntry flats = stored(Kind::flat, {flat(3, 0), flat(3, 1), flat(3, 2)});
  const TensorEntry one_block = stored(Kind::block, {row(1, 0)});
  struct Case {
    const TensorEntry& tensor;
    Placement piece;
    Use use;
  };
  for (const Case& c : std::vector<Case>{{replicated, whole, Use::loaded},
                                         {replicated, row(1, 0), Use::loaded},
                                         {replicated, column, Use::resharded},
                                         {rows, row(2, 1), Use::loaded},
                                         {rows, flat(2, 1), Use::loaded},
                                         {rows, row(4, 1), Use::resharded},
                                         {rows, column, Use::resharded},
                                         {rows, whole, Use::resharded},
                                         {flats, flat(3, 2), Use::loaded},
                                         {flats, flat(4, 2), Use::resharded},
                                         {flats, row(4, 0), Use::resharded},
                                         {one_block, whole, Use::loaded},
                                         {one_block, Placement::flat(shape, 3, 0), Use::loaded}}) {
    EXPECT_EQ(use_of(c.tensor, c.piece), c.use)
        << to_string(c.tensor.placement) << " " << to_string(c.piece.box);
  }
}

TEST(LoadPlan, NotesOfRanksUniteByName) {
  LoadNotes notes{{"a"}, {{"m", {1}, {2}}}, {{"s", "why"}}, {"w"}};
  unite(notes, decode_notes(encode({{"a", "b"}, {{"m", {1}, {2}}}, {{"t", "y"}}, {"w", "x"}})));
  EXPECT_EQ(notes.missing, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(notes.mismatched.size(), 1U);
  EXPECT_EQ(notes.skipped.size(), 2U);
  EXPECT_EQ(notes.warnings, (std::vector<std::string>{"w", "x"}));
}

}  // namespace
}  // namespace cairn::detail
