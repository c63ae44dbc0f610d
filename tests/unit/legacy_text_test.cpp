// How a configuration is edited: everything that does not move stays byte for byte, and what cannot
// be edited is refused.
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cairn/config.hpp"
#include "cairn/error.hpp"
#include "cairn/legacy_config.hpp"

namespace cairn {
namespace {

ConfigMigration migrate(const std::string& yaml) {
  return LegacyConfigMigrator().migrate(yaml, "old.yaml");
}

/// The new text without the blocks that were put in: from the first comment of a migration to the
/// empty line behind them, or the end.
std::string rest_of(const std::string& yaml) {
  const ConfigMigration migration = migrate(yaml);
  EXPECT_TRUE(migration.ok()) << (migration.ok() ? "" : migration.errors[0].message);
  std::string text = migration.text;
  const auto begin = text.find("# Migrated from");
  if (begin == std::string::npos) return text;
  const std::string empty = text.find("\r\n") == std::string::npos ? "\n\n" : "\r\n\r\n";
  const auto end = text.find(empty, begin);
  return text.erase(begin, end == std::string::npos ? end : end + empty.size() - begin);
}

std::string error_of(const std::string& yaml) {
  const ConfigMigration migration = migrate(yaml);
  EXPECT_EQ(migration.text, yaml);
  return migration.ok() ? "" : migration.errors[0].code;
}

TEST(LegacyText, OnlyTheKeysThatMoveGo) {
  // Each pair: a file, and what is left of it beside the new blocks.
  const std::vector<std::pair<std::string, std::string>> cases{
      {"training:\n  run_id: R\n  lr: 1\n", "training:\n  lr: 1\n"},
      {"training:\n  lr: 1\n  run_id: R", "training:\n  lr: 1\n"},
      {"training:\n  run_id: R\n", ""},
      {"a: 1\ntraining:\n  run_id: R\n...\n", "a: 1\n...\n"},
      {"training: {run_id: R, lr: 1}\n", "training: {lr: 1}\n"},
      {"training: {lr: 1, run_id: R}\n", "training: {lr: 1}\n"},
      {"training: { lr: 1 , run_id: 'R, }' , fork_run_id: R }\n", "training: { lr: 1   }\n"},
      {"training: {a: 1, run_id: R, b: \"x}, #\", fork_run_id: R, c: [1, {d: 2}]}\n",
       "training: {a: 1, b: \"x}, #\", c: [1, {d: 2}]}\n"},
      {"training: {\n  lr: 1, # why\n  run_id: R\n}\n", "training: {\n  lr: 1, # why\n}\n"},
      {"training: {\n  lr: 1,\n  run_id: R\n}\n", "training: {\n  lr: 1\n}\n"},
      {"training:\n  run_id: R # mine\n  lr: 1\n",
       "training:\n  # run_id is now checkpoint.source.run_id, checkpoint.lineage.resume_run_id: # "
       "mine\n  lr: 1\n"},
      {"training:\n  run_id: null # none\n  lr: 1\n", "training:\n  # none\n  lr: 1\n"},
      {"training:\n  # above\n  run_id: R\n  # below\n  lr: 1\n",
       "training:\n  # above\n  # below\n  lr: 1\n"},
      {"training:\n  ? lr\n  : 1\n  run_id: R\n", "training:\n  ? lr\n  : 1\n"},
      {"training:\n  \"run_id\" : !!str R\n  lr: 1\n", "training:\n  lr: 1\n"},
      {"training:\n  run_id:\n    R\n  lr: 1\n", "training:\n  lr: 1\n"},
      {"training:\n  run_id: >-\n    # R\n\n  lr: 1\n", "training:\n\n  lr: 1\n"},
      {"training:\n  run_id: \"R\\\n    S\"\n  lr: 1\n", "training:\n  lr: 1\n"},
      {"training:\n  note: |+\n    # text\n\n  run_id: R\n  lr: 1\n",
       "training:\n  note: |+\n    # text\n\n  lr: 1\n"},
      {"training:\n  submodules_to_freeze:\n  - a # big\n  -   b\n  # c\n  lr: 1\n",
       "training:\n  # submodules_to_freeze is now model_modifier.modifiers: # big\n  # c\n  lr: "
       "1\n"},
      {"training:\n  swa:\n    enabled: false\n    # no\n    lr: 1\n\n  lr: 1\n",
       "training:\n  # no\n\n  lr: 1\n"},
      {"  training:\n      run_id: R\n      lr: 1\n", "  training:\n      lr: 1\n"},
      {"training:\r\n  run_id: R\r\n  lr: 1\r\n", "training:\r\n  lr: 1\r\n"},
      {"\xef\xbb\xbftraining:\n  run_id: R\n  caf\xc3\xa9: 1\n",
       "\xef\xbb\xbftraining:\n  caf\xc3\xa9: 1\n"},
      {"x: it's\ntraining:\n  run_id: R\n  lr: 1\ny: a#b\n",
       "x: it's\ntraining:\n  lr: 1\ny: a#b\n"},
  };
  for (const auto& [old, rest] : cases) {
    std::string left = rest_of(old);
    // A block that stands in an indented document is indented.
    if (old.starts_with("  ") && left.starts_with("  training") == false) left = left.substr(2);
    EXPECT_EQ(left, rest) << old << "----\n" << migrate(old).text;
  }
}

TEST(LegacyText, NewBlocksStandBeforeTheSectionTheyComeFrom) {
  const std::string text = migrate(
                               "# head\n\na: 1\n\n# about\n# training\ntraining:\n  run_id: R\n"
                               "  lr: 1\nz: |\n  end")
                               .text;
  EXPECT_TRUE(text.starts_with("# head\n\na: 1\n\n# Migrated from the legacy schema E2")) << text;
  EXPECT_TRUE(text.ends_with("\n\n# about\n# training\ntraining:\n  lr: 1\nz: |\n  end")) << text;
  // Every key that came in says where from.
  EXPECT_NE(
      text.find("  # was training.run_id: goes on from the run's last checkpoint\n  source:\n"),
      std::string::npos);
}

TEST(LegacyText, JsonStaysJson) {
  const std::string text =
      migrate("{\"training\": {\"run_id\": \"R\", \"lr\": 1e-3},\n \"b\": [1]}\n").text;
  const auto json = nlohmann::json::parse(text);
  EXPECT_EQ(json["training"].dump(), "{\"lr\":0.001}");
  EXPECT_EQ(json["checkpoint"]["source"]["run_id"], "R");
  EXPECT_EQ(nlohmann::json::parse(migrate("{\"training\": {\"run_id\": \"R\"}}")
                                      .text)["checkpoint"]["lineage"]["resume_run_id"],
            "R");
}

TEST(LegacyText, TextsStayTexts) {
  for (const std::string id :
       {"12345678", "58e25", "0x1f", "true", "null", "2024-01-01", "1:30", "a: b", "a #b", "it's",
        "@x", "-", "\"q\"", "a\\tb", "caf\xc3\xa9", "x]", "${oc.env:CAIRN_TEST_ID}"}) {
    ::setenv("CAIRN_TEST_ID", "from-env", 1);
    std::string quoted = "'";
    for (const char c : id) quoted += c == '\'' ? "''" : std::string(1, c);
    const auto migration = migrate("training: {lr: 1, run_id: " + quoted + "'}");
    ASSERT_TRUE(migration.ok()) << id;
    EXPECT_EQ(Config::from_string(migration.text).lineage.resume_run_id,
              id.starts_with("$") ? "from-env" : id)
        << migration.text;
  }
}

TEST(LegacyText, ReferencesFollow) {
  const auto save_dir = [](const std::string& yaml) {
    const auto migration = migrate(yaml);
    EXPECT_TRUE(migration.ok()) << (migration.ok() ? "" : migration.errors[0].message);
    EXPECT_EQ(migrate(migration.text).text, migration.text);
    return migration.text;
  };
  const auto has = [&](const std::string& yaml, const std::string& part) {
    const std::string text = save_dir(yaml);
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  const std::string hardware = "hardware:\n  paths:\n    checkpoints: /c\n";
  has(hardware + "    plots: ${hardware.paths.checkpoints}/p # ${hardware.paths.checkpoints}\n",
      "plots: ${save.root}/p # ${hardware.paths.checkpoints}\n");
  has(hardware + "    plots: ${.checkpoints}/p\n", "plots: ${save.root}/p\n");
  has(hardware + "log: {dirs: ['${oc.select:hardware.paths.checkpoints,x}', \"${x}\"]}\n",
      "log: {dirs: ['${oc.select:save.root,x}', \"${x}\"]}");
  has("training: {run_id: R}\nlog: {name: 'run-${training.run_id}'}\n",
      "name: 'run-${checkpoint.lineage.resume_run_id}'");
  has("system: {input: {warm_start: /w}}\nlog: ${system.input.warm_start}\n",
      "log: ${checkpoint.source.path}\n");
  has("system: {input: {warm_start: /w}}\ntraining: {load_weights_only: true}\nlog: "
      "${training.load_weights_only}\n",
      "log: true\n");
  // The value of a relative reference that moves is still the same.
  has("system:\n  input:\n    warm_start: ${..output.root}/last.ckpt\n  output: {root: /o}\n",
      "path: ${system.output.root}/last.ckpt\n");
  // A null that something asks for stays.
  has("training:\n  run_id: null\n  fork_run_id: F\nlog: run-${training.run_id}\n",
      "training:\n  run_id: null\nlog: run-${training.run_id}\n");
  EXPECT_EQ(error_of("training: {submodules_to_freeze: [a], lr: 1}\nlog: "
                     "${training.submodules_to_freeze}\n"),
            "referenced-key");
}

TEST(LegacyText, ReferencesWithoutEndAreLeftAsTheyAre) {
  std::string yaml = "training: {lr: 1, run_id: '${x-9}'}\n";
  for (int i = 9; i > 0; --i) {
    yaml += "x-" + std::to_string(i) + ": '";
    for (int k = 0; k < 20; ++k) yaml += "${x-" + std::to_string(i - 1) + "}";
    yaml += "'\n";
  }
  EXPECT_TRUE(migrate(yaml + "x-0: a\n").ok());
  EXPECT_TRUE(migrate("training: {lr: 1, run_id: '${x-a}'}\nx-a: '${x-b}'\nx-b: '${x-a}'\n").ok());
  const std::string deep(20'000, '$');
  EXPECT_TRUE(migrate("training: {lr: 1, run_id: '" + deep + "{'}\n").ok());
}

TEST(LegacyText, AnchorsAreRespected) {
  const std::string merged = "x-base: &base {run_id: R, lr: 1}\ntraining:\n  <<: *base\n  a: 1\n";
  EXPECT_EQ(rest_of(merged), "x-base: &base {lr: 1}\ntraining:\n  <<: *base\n  a: 1\n");
  // Taking the key out of a mapping that others use, or from above a merged one, changes others.
  EXPECT_EQ(error_of("other: &base {run_id: R, lr: 1}\ntraining: {<<: *base}\n"),
            "shared-by-anchor");
  EXPECT_EQ(error_of("x-base: &base {run_id: S}\ntraining:\n  <<: *base\n  run_id: R\n"),
            "shadows-merged-key");
  const std::string hidden = "x-base: &base {run_id: S}\ntraining:\n  <<: *base\n  run_id: null\n";
  EXPECT_EQ(migrate(hidden).text, hidden);
  EXPECT_EQ(error_of("training:\n  run_id: &id R\n  lr: 1\nlog: *id\n"), "cannot-edit");
  EXPECT_EQ(rest_of("x-id: &id R\ntraining:\n  run_id: *id # x\n  lr: 1\n"),
            "x-id: &id R\ntraining:\n  # run_id is now checkpoint.source.run_id, "
            "checkpoint.lineage.resume_run_id: # x\n  lr: 1\n");
}

TEST(LegacyText, WhatWouldMeanSomethingElseIsRefused) {
  // The empty line behind the key would become part of the text above it.
  EXPECT_EQ(error_of("training:\n  note: |+\n    text\n  run_id: R\n\n  lr: 1\n"), "cannot-edit");
  EXPECT_EQ(error_of("training:\n  lr: 1\n  ? run_id\n  : R\n"), "cannot-edit");
  EXPECT_TRUE(migrate("--- {training: {run_id: R, ? a : b}}\n").ok());
}

TEST(LegacyText, WhatIsNoConfigurationThrows) {
  for (const std::string text : {"- 1", "just text", "a: [", "a: 1\n---\nb: 2\n",
                                 "training: {run_id: a}\ntraining: {run_id: b}"}) {
    EXPECT_THROW(migrate(text), Error) << text;
  }
  EXPECT_FALSE(migrate("").changed);
  EXPECT_FALSE(migrate("# nothing\n").changed);
}

TEST(LegacyText, NoPrefixOfAFileDoesHarm) {
  const std::string text =
      "# head\nx-base: &base {lr: 6.25e-4}\nsystem:\n  input: {warm_start: \"/path #1\", n: ~}\n"
      "  output:\n    root: ${oc.env:S}/x\n    checkpoints: {root: ck}\ntraining:\n  <<: *base\n"
      "  run_id: 'R'   # mine\n  load_weights_only: yes\n  submodules_to_freeze:\n  - a\n  -  b\n"
      "  note: |\n    # text\n  swa:\n    enabled: true\ndiagnostics:\n  checkpoint:\n"
      "    every_n_epochs: {save_frequency: 1,\n      num_models_saved: -1}\nend: 1\n";
  int migrated = 0;
  for (std::size_t size = 0; size <= text.size(); ++size) {
    ConfigMigration migration;
    try {
      migration = migrate(text.substr(0, size));
    } catch (const Error&) {
      continue;  // no YAML
    }
    if (!migration.ok()) {
      EXPECT_EQ(migration.text, text.substr(0, size));
      continue;
    }
    ++migrated;
    EXPECT_EQ(migrate(migration.text).text, migration.text) << text.substr(0, size);
  }
  EXPECT_GT(migrated, 100);
}

}  // namespace
}  // namespace cairn
