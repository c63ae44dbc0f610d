// Settings that a program fills in, held to the rules of files, and how settings are shown.
#include "pipeline/config_document.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <set>

#include "cairn/error.hpp"
#include "pipeline/document.hpp"
#include "pipeline/rules.hpp"
#include "pipeline/secrets.hpp"
#include "support/config_errors.hpp"

namespace cairn {
namespace {

using detail::Kind;
using detail::Value;

/// Together they give every key a value that is not its default.
const std::vector<std::string> kDocuments{
    R"(
checkpoint:
  source:
    {type: s3, bucket: b, key: k, region: r, endpoint: "https://h", style: path, profile: p,
     anonymous: true, sha256: "0000000000000000000000000000000000000000000000000000000000000000",
     cache_dir: c, max_retries: 7, timeout: 2.5, connections: 3, part_bytes: 65536, ca_file: f}
  loading:
    type: warm_start
    rename: [{from: a, to: "", regex: false}, {from: "^b", to: c, regex: true}]
    cast: true
    verify: loaded
    broadcast: always
    keep_copy: true
    rescale_lr: sqrt
  migrations: m
  lineage: {resume_run_id: r, parent_run_id: p}
model_modifier:
  modifiers:
    - {type: freeze, layers: [a, b.c]}
    - {type: lora, rank: 3, alpha: 1.5, dropout: 0.25, target_modules: [d]}
    - {type: reset, layers: [e]}
    - {type: cast, dtype: bf16, layers: [f]}
pipeline: {async_execution: false, max_retries: 9, timeout: 0.5, fallback: false}
save:
  dir: d
  root: r
  every_n_steps: 10
  every_n_epochs: 2
  every_minutes: 0.5
  monitor: loss
  mode: max
  save_top_k: 2
  preemption: {signals: false, time_limit: 100, lead: 1.5, grace: 7}
  keep_last: 3
  keep_every_n_steps: 100
  keep_best: {k: 2, metric: loss, mode: max}
  lease: false
  max_restarts: 1
  triggers: [{unit: train_steps, save_frequency: 10, num_models_saved: 4}]
  name_templates: {minutes: "m", epochs: "e", train_steps: "s"}
  engine: mpio
  transfer: independent
  mpio: {hints: {cb_nodes: 2}, component: romio, watchdog: 9, deflate: 4, shuffle: false}
  durable: false
  statistics: true
  replica_check: full
  delta: true
)",
    R"(
checkpoint:
  source: {type: https, url: "https://h/f", sha256: "1111111111111111111111111111111111111111111111111111111111111111", token_env: T}
  loading: {type: transfer_learning, strict: true, skip_mismatched: false, freeze_loaded: true,
            reset_progress: true, min_match: 0.5, reset_layers: [a], cast: true}
model_modifier: {modifiers: [{type: cast, dtype: f16}, {type: lora, target_modules: [a]}]}
save:
  enabled: false
  async: {budget_bytes: 20000000, when_busy: skip, on_failure: retry}
)",
    R"(
checkpoint:
  source: {type: huggingface, repo: o/n, revision: v, file: f, endpoint: "https://h", token_env: T}
  loading: {type: cold_start, strict: false, reset_layers: [a]}
)",
    R"(
checkpoint:
  source: {type: run, root: r, run_id: i, fork: true, file: f}
  loading: {type: weights_only, strict: false, reset_progress: true}
)", "checkpoint: {source: {path: p}, loading: {type: cold_start}}", "{}"};

/// The dotted paths of all that a value gives.
void collect(const Value& value, const std::string& path, std::set<std::string>& paths) {
  if (!path.empty()) paths.insert(path);
  for (const Value& item : value.items) collect(item, path, paths);
  for (const auto& [key, child] : value.entries) {
    collect(child, path.empty() ? key : path + "." + key, paths);
  }
}

/// The same of all that a rule knows.
void collect(const detail::BlockRule& rule, const std::string& path, std::set<std::string>& paths) {
  const auto add = [&](std::span<const detail::Key> keys) {
    for (const detail::Key& key : keys) {
      const std::string at = (path.empty() ? "" : path + ".") + std::string(key.name);
      paths.insert(at);
      if (key.block != nullptr) collect(*key.block, at, paths);
    }
  };
  add(rule.keys);
  for (const detail::TypeRule& type : rule.types) {
    add(type.keys);
    add(type.more);
  }
}

TEST(ConfigDocument, IsThatOfTheFile) {
  std::set<std::string> seen;
  for (const std::string& yaml : kDocuments) {
    const Value document = detail::checked_document(yaml, "test.yaml");
    collect(document, "", seen);
    const Config config = detail::config_of(document, "test.yaml");
    detail::check(config, "test");
    auto shown = detail::resolved_block(&document, detail::kDocument);
    auto again = detail::config_json(config);
    EXPECT_EQ(nlohmann::json(again), nlohmann::json(shown)) << yaml;
  }
  std::set<std::string> known;
  collect(detail::kDocument, "", known);
  for (const std::string& key : known) {
    EXPECT_TRUE(seen.contains(key)) << "no document of this test gives " << key;
  }
}

TEST(ConfigDocument, AProgramIsHeldToTheRulesOfFiles) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto error_of = [](const std::function<void(Config&)>& change) {
    Config config;
    change(config);
    try {
      detail::check(config, "the settings");
    } catch (const Error& error) {
      return std::string(to_string(error.code())) + " " + error.what();
    }
    return std::string("no error");
  };
  EXPECT_EQ(error_of([](Config&) {}), "no error");
  LoraModifier lora;
  lora.target_modules = {"a"};
  lora.rank = 0;
  EXPECT_EQ(error_of([&](Config& c) { c.modifiers = {lora}; }),
            "usage the settings: 'model_modifier.modifiers[0].rank' must be a number from 1");
  EXPECT_EQ(error_of([](Config& c) { c.modifiers = {FreezeModifier{}}; }),
            "usage the settings: 'model_modifier.modifiers[0].layers' must be a list of dotted "
            "paths that is not empty");
  EXPECT_TRUE(holds(error_of([](Config& c) { c.modifiers = {CastModifier{DType::i8}}; }), "'f16'"));
  EXPECT_TRUE(holds(error_of([&](Config& c) { c.loading = LoadingConfig{.min_match = nan}; }),
                    "loading.min_match"));
  EXPECT_TRUE(holds(error_of([](Config& c) {
                      c.loading = LoadingConfig{.type = LoadingType::cold_start, .min_match = 0.5};
                    }),
                    "is a key of the type 'transfer_learning', not of 'cold_start'"));
  EXPECT_TRUE(holds(error_of([](Config& c) {
                      c.loading = LoadingConfig{.rename = {{"(", "", true}}};
                    }),
                    "no regular expression"));
  EXPECT_TRUE(
      holds(error_of([](Config& c) { c.pipeline.timeout = std::chrono::milliseconds::max(); }),
            "'pipeline.timeout' must be a number of seconds"));
  EXPECT_TRUE(holds(error_of([](Config& c) { c.source = LocalSource{}; }), "source.path"));
  EXPECT_TRUE(
      holds(error_of([](Config& c) { c.source = HttpSource{"ftp://h"}; }), "must begin with"));
  EXPECT_TRUE(holds(error_of([](Config& c) { c.source = CustomSource{"nobody"}; }),
                    "source.type' must be"));
  EXPECT_TRUE(holds(error_of([](Config& c) { c.save.save_top_k = 0; }), "save.save_top_k"));
}

TEST(ConfigDocument, RanksAreComparedByAllButWhatMayDiffer) {
  const auto differs = [](const std::function<void(Config&)>& change) {
    Config config = Config::from_string(
        "checkpoint: {source: {type: http, url: 'https://h/f'}}\nsave: {async: true}");
    const auto before = detail::parts_of(config);
    change(config);
    const auto after = detail::parts_of(config);
    std::string names;
    for (std::size_t i = 0; i < before.size(); ++i) {
      if (before[i].hash != after[i].hash) names += std::string(before[i].subject) + " ";
    }
    return names;
  };
  EXPECT_EQ(differs([](Config&) {}), "");
  EXPECT_EQ(differs([](Config& c) { c.source = LocalSource{"a"}; }), "checkpoint.source ");
  EXPECT_EQ(differs([](Config& c) {
              c.loading = LoadingConfig{.type = LoadingType::weights_only, .reset_progress = true};
            }),
            "checkpoint.loading ");
  EXPECT_EQ(differs([](Config& c) { c.modifiers = {FreezeModifier{{"a"}}}; }), "model_modifier ");
  EXPECT_EQ(differs([](Config& c) { c.save.delta = true; }), "save ");
  EXPECT_EQ(differs([](Config& c) {
              std::get<HttpSource>(*c.source).fetch.cache_dir = "/local/cache";
              c.save.preemption.time_limit_s = 100;
              c.save.async->budget_bytes = 20'000'000;
            }),
            "");
}

TEST(ConfigDocument, SecretsAreNotShown) {
  EXPECT_TRUE(detail::sounds_secret("Db_Passwd"));
  EXPECT_TRUE(detail::sounds_secret("credentials"));
  EXPECT_TRUE(detail::sounds_secret("API_KEY"));
  EXPECT_TRUE(detail::sounds_secret("ApiKey"));
  EXPECT_FALSE(detail::sounds_secret("keyboard"));
  EXPECT_FALSE(detail::sounds_secret("layers"));
  setenv("CAIRN_TEST_TOKEN", "abcdefgh12345", 1);
  Config config;
  config.source =
      CustomSource{"mine", {{"user", "me"}, {"Passwd", "pw"}, {"header", "Bearer abcdefgh12345"}}};
  const auto source = detail::config_json(config)["checkpoint"]["source"];
  unsetenv("CAIRN_TEST_TOKEN");
  EXPECT_EQ(source["user"], "me");
  EXPECT_EQ(source["Passwd"], "***");
  EXPECT_EQ(source["header"], "***");
}

TEST(ConfigDocument, TextsAreNoNumbersAndNoFlags) {
  EXPECT_EQ(
      error_of("pipeline: {max_retries: \"3\"}"),
      "usage test.yaml:1: 'pipeline.max_retries' must be a number of retries, without quotes");
  for (const std::string yaml :
       {"save: {durable: 'yes'}", "pipeline: {timeout: '600'}", "save: {async: 'true'}",
        "save: {triggers: [{unit: epochs, save_frequency: 1, num_models_saved: '-1'}]}",
        "pipeline: {max_retries: !!str 3}"}) {
    EXPECT_TRUE(holds(error_of(yaml), "without quotes")) << yaml;
  }
  for (const std::string yaml :
       {"save: {monitor: '3', engine: 'direct'}", "pipeline: {max_retries: \"${x-n}\"}\nx-n: 3",
        "save: {dir: '7'}"}) {
    EXPECT_EQ(error_of(yaml), "no error") << yaml;
  }
}

}  // namespace
}  // namespace cairn
