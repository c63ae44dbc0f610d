// What a program can ask of the context of a load. No LibTorch.
#include "cairn/context.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "cairn/error.hpp"

namespace cairn {
namespace {

CheckpointContext sample() {
  CheckpointContext context;
  context.path = "runs/a/step-00000012.h5";
  context.format = "cairn";
  context.global_step = 12;
  context.metrics = {{"loss", 0.5}, {"worst", std::numeric_limits<double>::infinity()}};
  context.documents = {{"config", R"({"model": {"width": 8, "a.b": 1, "none": null}})"},
                       {"optimizer", "{}"},
                       {"broken", "{"}};
  context.lineage.run_id = "r1";
  context.report.skipped = {{"model/head", "why"}};
  context.report.cast = {{"model/w", DType::f64, DType::f32}};
  context.report.mismatched = {{"model/x", Shape{2}, Shape{3, 1}}};
  context.config.source = LocalSource{"runs/a"};
  context.config.loading = LoadingConfig{};
  context.trace = {{"open", 0.25, 7, "completed"}};
  return context;
}

std::string error_of(const CheckpointContext& context, Errc code,
                     const std::vector<std::string>& fields) {
  try {
    context.validate_for("a resume", fields);
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.code()), to_string(code)) << error.what();
    return error.what();
  }
  return "";
}

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Context, IsValidatedForAPurpose) {
  const CheckpointContext context = sample();
  context.validate_for("nothing", {});
  context.validate_for("a resume",
                       {"optimizer", "metrics.loss", "lineage.run_id", "metadata.config",
                        "metadata.config.model.width", "metadata.config.model.a.b"});
  const auto text =
      error_of(context, Errc::mismatch,
               {"optimizer", "scheduler", "metrics.los", "rng", "lineage.uuid",
                "metadata.config.model.none", "metadata.config.model.widht", "metadata.broken.x"});
  for (const char* lacking :
       {"'scheduler'", "'metrics.los'", "'rng'", "'lineage.uuid'", "'metadata.config.model.none'",
        "'metadata.config.model.widht'", "'metadata.broken.x'"}) {
    EXPECT_TRUE(holds(text, lacking)) << text;
  }
  EXPECT_FALSE(holds(text, "'optimizer'")) << text;
  EXPECT_TRUE(holds(text, "for a resume") && holds(text, "step-00000012.h5")) << text;
  EXPECT_TRUE(holds(text, "near names: 'metrics.loss'")) << text;
  EXPECT_TRUE(holds(error_of(context, Errc::usage, {"optimiser"}), "near names: 'optimizer'"));
}

TEST(Context, HasAJsonForm) {
  const auto json = nlohmann::json::parse(to_json(sample()));
  EXPECT_EQ(json.at("global_step"), 12);
  EXPECT_EQ(json.at("metrics").at("loss"), 0.5);
  EXPECT_EQ(json.at("metrics").at("worst"), "Infinity");
  EXPECT_EQ(json.at("metadata").at("config").at("model").at("width"), 8);
  EXPECT_EQ(json.at("metadata").at("broken"), "{");
  EXPECT_EQ(json.at("lineage").at("run_id"), "r1");
  const auto& config = json.at("config");
  EXPECT_EQ(config.at("checkpoint").at("source").at("path"), "runs/a");
  EXPECT_EQ(config.at("checkpoint").at("loading").at("type"), "warm_start");
  EXPECT_EQ(config.at("save").at("engine"), "direct");
  EXPECT_EQ(json.at("trace").at(0).at("bytes"), 7);
  const auto& report = json.at("report");
  EXPECT_EQ(report.at("skipped").at(0).at("reason"), "why");
  EXPECT_EQ(report.at("cast").at(0).at("from"), "f64");
  EXPECT_EQ(report.at("mismatched").at(0).at("in_memory"), nlohmann::json({3, 1}));
}

}  // namespace
}  // namespace cairn
