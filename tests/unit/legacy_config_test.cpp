// What legacy keys mean: the truth table, the eras, the names of frozen modules, where checkpoints
// are saved. What comes out is read by Config, as a trainer would.
#include "cairn/legacy_config.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "cairn/config.hpp"
#include "cairn/error.hpp"

namespace cairn {
namespace {

std::string codes(const std::vector<MigrationNote>& notes) {
  std::string text;
  for (const MigrationNote& note : notes) text += (text.empty() ? "" : " ") + note.code;
  return text;
}

ConfigMigration migrate(const std::string& yaml, const std::string& version = "") {
  ConfigMigration migration = LegacyConfigMigrator(version).migrate(yaml, "old.yaml");
  if (migration.ok()) {
    // Whatever the case, a second migration has nothing to do.
    const ConfigMigration again = LegacyConfigMigrator(version).migrate(migration.text, "new.yaml");
    EXPECT_TRUE(again.ok()) << codes(again.errors) << "\n" << migration.text;
    EXPECT_EQ(again.text, migration.text);
    EXPECT_EQ(codes(again.warnings), "") << migration.text;
  } else {
    EXPECT_EQ(migration.text, yaml);
    EXPECT_FALSE(migration.changed);
  }
  return migration;
}

Config config_of(const std::string& yaml, const std::string& version = "") {
  const ConfigMigration migration = migrate(yaml, version);
  EXPECT_TRUE(migration.ok()) << yaml << codes(migration.errors);
  return Config::from_string(migration.text, "new.yaml");
}

std::string errors_of(const std::string& yaml, const std::string& version = "") {
  return codes(migrate(yaml, version).errors);
}

std::string warnings_of(const std::string& yaml, const std::string& version = "") {
  return codes(migrate(yaml, version).warnings);
}

const LoadingConfig kWarm{};
const LoadingConfig kWeights = [] {
  LoadingConfig loading;
  loading.type = LoadingType::weights_only;
  loading.strict = false;
  loading.reset_progress = true;
  return loading;
}();
const LoadingConfig kTransfer = [] {
  LoadingConfig loading = kWeights;
  loading.type = LoadingType::transfer_learning;
  return loading;
}();

struct Row {
  std::string training;  ///< the entries of `training`
  bool file = false;     ///< system.input.warm_start
  std::optional<Source> source;
  LineageConfig lineage;
  std::optional<LoadingConfig> loading;
  std::string warnings;
};

TEST(LegacyConfig, EveryRowOfTheTruthTable) {
  const std::string both = "run_id: R, fork_run_id: F";
  const Source w = LocalSource{"/w/x.ckpt"};
  const Source run = RunSource{"/out/ck", "R"};
  const Source fork = RunSource{"/out/ck", "F", true};
  const std::vector<Row> rows{
      {"lr: 1", false, {}, {}, {}, ""},
      {"run_id: R", false, run, {"R", ""}, kWarm, ""},
      {"fork_run_id: F", false, fork, {"", "F"}, kWarm, ""},
      {both, false, fork, {"R", "F"}, kWarm, "run-prepared-externally"},
      {"run_id: R, fork_run_id: R", false, run, {"R", ""}, kWarm, "fork-equals-run"},
      {"lr: 1", true, w, {}, kWarm, ""},
      {"run_id: R", true, w, {"R", ""}, kWarm, "explicit-file-wins"},
      {"fork_run_id: F", true, w, {"", "F"}, kWarm, ""},
      {both, true, w, {"R", "F"}, kWarm, "run-prepared-externally explicit-file-wins"},
      {"run_id: R, load_weights_only: true", false, run, {"R", ""}, kWeights, ""},
      {"fork_run_id: F, load_weights_only: yes", false, fork, {"", "F"}, kWeights, ""},
      {"load_weights_only: True", true, w, {}, kWeights, ""},
      {both + ", load_weights_only: on",
       false,
       fork,
       {"R", "F"},
       kWeights,
       "run-prepared-externally"},
      {"load_weights_only: true, transfer_learning: true", true, w, {}, kTransfer, ""},
      {"run_id: R, load_weights_only: true, transfer_learning: true",
       false,
       run,
       {"R", ""},
       kTransfer,
       ""},
      {"transfer_learning: true", true, w, {}, kWarm, "transfer-learning-ignored"},
      {"run_id: R, transfer_learning: true, load_weights_only: null",
       false,
       run,
       {"R", ""},
       kWarm,
       "transfer-learning-ignored"},
      {"transfer_learning: true", false, {}, {}, {}, "transfer-learning-ignored"},
      {"run_id: null, fork_run_id: ~, load_weights_only: , transfer_learning: no",
       false,
       {},
       {},
       {},
       ""},
      {"run_id: '', fork_run_id: \"\"", false, {}, {}, {}, ""},
      {"load_weights_only: 1, transfer_learning: 0", true, w, {}, kWeights, ""},
  };
  for (const Row& row : rows) {
    std::string yaml = "training: {" + row.training +
                       ", keep: 1}\nsystem:\n  output: {root: /out, checkpoints: {root: ck}}\n";
    if (row.file) yaml += "  input: {warm_start: /w/x.ckpt}\n";
    const Config config = config_of(yaml);
    EXPECT_EQ(config.source, row.source) << yaml;
    EXPECT_EQ(config.lineage, row.lineage) << yaml;
    EXPECT_EQ(config.loading, row.loading) << yaml;
    EXPECT_EQ(config.save.root, "/out/ck") << yaml;
    EXPECT_EQ(warnings_of(yaml), row.warnings) << yaml;
  }
  for (const std::string flags :
       {"load_weights_only: true", "load_weights_only: true, transfer_learning: true",
        "run_id: null, load_weights_only: true"}) {
    EXPECT_EQ(errors_of("training: {" + flags + "}"), "weights-only-without-source") << flags;
  }
}

TEST(LegacyConfig, EachEraHasItsOwnFile) {
  const std::string ids = "training: {run_id: R, fork_run_id: F}\n";
  const auto hardware = [](const std::string& paths, const std::string& files) {
    return "hardware:\n  keep: 1\n  paths: {" + paths + "}\n  files: {" + files + "}\n";
  };
  const auto path = [](const std::string& yaml, const std::string& version = "") {
    return std::get<LocalSource>(*config_of(yaml, version).source).path.string();
  };
  // E0: a name below the folder of the fork, else of the run.
  EXPECT_EQ(path(hardware("checkpoints: /c/", "warm_start: a.ckpt") + ids), "/c/F/a.ckpt");
  EXPECT_EQ(path(hardware("checkpoints: /c", "warm_start: a.ckpt") + "training: {run_id: R}"),
            "/c/R/a.ckpt");
  EXPECT_EQ(path(hardware("checkpoints: /c", "warm_start: /x/a.ckpt") + ids), "/x/a.ckpt");
  EXPECT_EQ(config_of(hardware("other: 1", "warm_start: a.ckpt") + ids).source,
            Source(RunSource{"", "F", true, "a.ckpt"}));
  const std::string lonely = hardware("checkpoints: /c", "warm_start: a.ckpt");
  EXPECT_EQ(errors_of(lonely), "warm-start-incomplete");
  EXPECT_EQ(warnings_of(lonely, "0.5"), "warm-start-ignored-without-id");
  EXPECT_EQ(warnings_of(lonely, "E0"), "warm-start-ignored-without-id");
  EXPECT_FALSE(config_of(lonely, "0.3.2").source.has_value());
  EXPECT_EQ(errors_of(lonely, "0.6"), "warm-start-incomplete");
  EXPECT_EQ(errors_of(lonely + "training: {load_weights_only: true}", "0.5"),
            "weights-only-without-source");
  // E1: a directory joined with a name; an absolute file wins; one alone is an error.
  EXPECT_EQ(path(hardware("warm_start: /d", "warm_start: a.ckpt")), "/d/a.ckpt");
  EXPECT_EQ(path(hardware("warm_start: d/", "warm_start: b/a.ckpt")), "d/b/a.ckpt");
  EXPECT_EQ(path(hardware("warm_start: /d", "warm_start: /e/a.ckpt") + ids), "/e/a.ckpt");
  EXPECT_EQ(path(hardware("warm_start: /d/x.ckpt", "warm_start: '${..paths.warm_start}'")),
            "/d/x.ckpt");
  EXPECT_EQ(errors_of(hardware("warm_start: /d", "warm_start: null")), "warm-start-incomplete");
  EXPECT_EQ(errors_of(hardware("warm_start: ~", "warm_start: a.ckpt") + ids),
            "warm-start-incomplete");
  ::setenv("CAIRN_TEST_ROOT", "/scratch", 1);
  const std::string unknown =
      hardware("warm_start: /d", "warm_start: '${oc.env:CAIRN_TEST_ROOT}/a.ckpt'");
  EXPECT_EQ(path(unknown), "/scratch/a.ckpt");
  EXPECT_EQ(warnings_of(unknown), "unresolved-join");
  EXPECT_EQ(path(hardware("warm_start: /d", "warm_start: '${oc.env:CAIRN_TEST_ROOT}.ckpt'")),
            "/d//scratch.ckpt");
  // E2: the whole path.
  EXPECT_EQ(path("system: {input: {warm_start: rel/a.ckpt}}"), "rel/a.ckpt");
  for (const auto& [yaml, era] : std::vector<std::pair<std::string, std::string>>{
           {lonely + ids, "E0"},
           {hardware("warm_start: ", "x: 1"), "E1"},
           {hardware("checkpoints: /c", "warm_start: null"), "E1"},
           {"system: {}\n" + ids, "E2"},
           {ids, "E2"},
           {"save: {dir: a}", "ES"},
           {"training: {lr: 1}", "E2"}}) {
    EXPECT_EQ(migrate(yaml).era, era) << yaml;
  }
}

TEST(LegacyConfig, KeysOfSeveralErasAreNotMixed) {
  EXPECT_EQ(errors_of("system: {input: {warm_start: a}}\nhardware: {files: {warm_start: b}}"),
            "mixed-eras");
  EXPECT_EQ(errors_of("system: {gpus: 1}\nhardware: {paths: {checkpoints: b}}"), "mixed-eras");
  EXPECT_EQ(errors_of("system: {input: {warm_start: a}}", "0.7"), "version-mismatch");
  EXPECT_EQ(errors_of("hardware: {paths: {warm_start: a}, files: {warm_start: b}}", "0.5"),
            "version-mismatch");
  EXPECT_EQ(errors_of("system: {input: {warm_start: a}}\nhardware: {files: {warm_start: ~}}"), "");
  for (const std::string version : {"seven", "1.0", "0", "0.", "E4", "ES", "0.7.", "-0.7"}) {
    EXPECT_THROW(LegacyConfigMigrator{version}, Error) << version;
  }
}

std::vector<std::string> frozen(const std::string& list, const std::string& version = "") {
  const Config config = config_of("training: {lr: 1, submodules_to_freeze: " + list + "}", version);
  return config.modifiers.empty() ? std::vector<std::string>{}
                                  : std::get<FreezeModifier>(config.modifiers.at(0)).layers;
}

TEST(LegacyConfig, FrozenNamesMeantThreeThings) {
  using Names = std::vector<std::string>;
  const auto warnings = [](const std::string& list, const std::string& version) {
    return warnings_of("training: {lr: 1, submodules_to_freeze: " + list + "}", version);
  };
  EXPECT_EQ(frozen("[encoder, processor]", "0.7"),
            (Names{"model.model.encoder", "model.model.processor"}));
  EXPECT_EQ(warnings("[encoder, processor]", "0.14"), "freeze-any-depth");
  // With a dot they froze nothing, and must not begin to.
  EXPECT_EQ(frozen("[encoder.data, encoder]", "0.14"), Names{"model.model.encoder"});
  EXPECT_EQ(warnings("[encoder.data, encoder]", "0.14"), "freeze-path-ignored freeze-any-depth");
  for (const std::string nothing : {"[encoder.data]", "[encoder.data, decoder.data]"}) {
    EXPECT_EQ(errors_of("training: {submodules_to_freeze: " + nothing + "}", "0.14"),
              "freeze-nothing");
  }
  EXPECT_EQ(frozen("[encoder.data, decoder]", "E1"), Names{"model.model.decoder"});
  // Then they were paths from the network.
  EXPECT_EQ(frozen("[encoder.data, decoder]", "0.15"),
            (Names{"model.model.encoder.data", "model.model.decoder"}));
  EXPECT_EQ(warnings("[encoder.data, decoder]", "0.16"), "");
  EXPECT_EQ(warnings("[encoder.data, decoder]", ""), "freeze-path freeze-any-depth");
  EXPECT_EQ(frozen("[model.model.encoder]"), Names{"model.model.encoder"});
  EXPECT_EQ(frozen("[]"), Names{});
  EXPECT_EQ(frozen("null"), Names{});
  EXPECT_EQ(frozen("'${x-names}'}\nx-names: [a]\nx-more: {a: 1", "0.15"), Names{"model.model.a"});
  for (const std::string wrong : {"encoder", "'${oc.env:X}'", "[[a]]", "{a: b}", "['']"}) {
    EXPECT_EQ(errors_of("training: {submodules_to_freeze: " + wrong + "}"), "invalid-value")
        << wrong;
  }
}

TEST(LegacyConfig, TellsWhatStandsForTheTimeLimit) {
  const std::string callback = "- _target_: a.callbacks.stopping.TimeLimit\n    limit: 6h\n";
  const std::string others =
      "training: {run_id: r}\ndiagnostics:\n  callbacks:\n  - _target_: a.callbacks.Plot\n  ";
  EXPECT_EQ(warnings_of(others + callback), "time-limit-stays");
  EXPECT_EQ(warnings_of("diagnostics: {callbacks: [{_target_: a.TimeLimiter}, b, {limit: 1}]}"),
            "");
  EXPECT_EQ(warnings_of("diagnostics: {callbacks: null}"), "");
}

TEST(LegacyConfig, TellsWhereAndWhenToSave) {
  const auto save = [](const std::string& yaml) { return config_of(yaml).save; };
  EXPECT_EQ(save("hardware: {paths: {checkpoints: a/b}, x: 1}").root, "a/b");
  EXPECT_EQ(save("system: {output: {root: /o/, checkpoints: {root: /abs}}}").root, "/abs");
  EXPECT_EQ(save("system: {output: {root: /o/, checkpoints: {root: rel}}}").root, "/o/rel");
  EXPECT_EQ(save("system: {output: {root: /o, checkpoints: {root: '${..root}/c'}}}").root, "/o/c");
  EXPECT_EQ(save("system: {output: {root: /o}}").root, "");
  EXPECT_NE(migrate("system:\n  output: {root: '\?\?\?', checkpoints: {root: ck}}\n")
                .text.find("root: ${system.output.root}/ck\n"),
            std::string::npos);
  EXPECT_EQ(warnings_of("system: {output: {checkpoints: {root: rel}}}"), "root-incomplete");
  EXPECT_FALSE(migrate("system: {output: {checkpoints: {root: '\?\?\?'}}}").changed);
  EXPECT_FALSE(save("diagnostics: {enable_checkpointing: False}").enabled);
  EXPECT_TRUE(save("diagnostics: {enable_checkpointing: true}").enabled);
  const auto triggers = [&](const std::string& text) {
    return save("diagnostics: {checkpoint: {" + text + "}}").triggers;
  };
  EXPECT_EQ(triggers("every_n_minutes: {save_frequency: 30, num_models_saved: 3}, every_n_epochs: "
                     "{save_frequency: 1, num_models_saved: -1}, every_n_train_steps: "
                     "{save_frequency: 1_000, num_models_saved: 0}"),
            (std::vector<SaveTrigger>{{SaveUnit::minutes, 30, 3},
                                      {SaveUnit::epochs, 1, -1},
                                      {SaveUnit::train_steps, 1000, 0}}));
  EXPECT_TRUE(triggers("every_n_epochs: {save_frequency: null, num_models_saved: 0}").empty());
  EXPECT_TRUE(triggers("every_n_epochs: {save_frequency: 0, num_models_saved: 3}").empty());
  // One number alone: the other is the legacy default, and that is told.
  EXPECT_EQ(triggers("every_n_minutes: {save_frequency: 5}"),
            (std::vector<SaveTrigger>{{SaveUnit::minutes, 5, 3}}));
  EXPECT_EQ(triggers("every_n_epochs: {num_models_saved: 2}"),
            (std::vector<SaveTrigger>{{SaveUnit::epochs, 1, 2}}));
  EXPECT_TRUE(triggers("every_n_train_steps: {num_models_saved: 2}").empty());
  EXPECT_EQ(warnings_of("diagnostics: {checkpoint: {every_n_epochs: {num_models_saved: 2}}}"),
            "partial-trigger");
  // What is not known to move stays.
  const auto more = migrate(
      "diagnostics: {checkpoint: {every_n_epochs: {save_frequency: 1, num_models_saved: 1, "
      "monitor: loss}}}");
  EXPECT_NE(more.text.find("every_n_epochs: {monitor: loss}"), std::string::npos) << more.text;
  EXPECT_EQ(save("system: {output: {checkpoints: {every_n_epochs: 'e-{epoch:03d}'}}}")
                .name_templates.at(SaveUnit::epochs),
            "e-{epoch:03d}");
}

TEST(LegacyConfig, AveragingDoesNotVanishInSilence) {
  const auto on = migrate("training:\n  swa: {enabled: true, lr: 1.e-4}\n  lr: 1\n");
  EXPECT_EQ(codes(on.warnings), "swa-lossy");
  EXPECT_NE(on.text.find("# training.swa (enabled: true, lr: 1.e-4) is left out"),
            std::string::npos)
      << on.text;
  EXPECT_EQ(warnings_of("training: {swa: {enabled: false, lr: 1}, lr: 1}"), "");
}

TEST(LegacyConfig, ValuesThatDecideNothingYetAreErrors) {
  const std::string file = "system: {input: {warm_start: a}}\n";
  EXPECT_EQ(errors_of(file + "training: {load_weights_only: '${oc.env:X}'}"), "unresolved-value");
  EXPECT_EQ(errors_of(file + "training:\n  load_weights_only: \?\?\?\n"), "unresolved-value");
  EXPECT_EQ(errors_of(file + "training: {load_weights_only: maybe}"), "invalid-value");
  EXPECT_EQ(errors_of(file + "training: {run_id: [a]}"), "invalid-value");
  EXPECT_EQ(errors_of("training:\n  run_id: \?\?\?\n"), "missing-value");
  EXPECT_EQ(errors_of("load_weights_only: true\nrun_id: x"), "part-of-a-configuration");
  EXPECT_EQ(config_of(file + "training: {load_weights_only: '${x-flag}'}\nx-flag: yes").loading,
            kWeights);
}

TEST(LegacyConfig, OldAndNewKeysOfOneKindAreErrors) {
  for (const std::string blocks :
       {"checkpoint: {source: {path: a}}\ntraining: {run_id: R}",
        "checkpoint: {source: {path: a}}\ntraining: {load_weights_only: true}",
        "checkpoint: {loading: {type: warm_start}}\ntraining: {fork_run_id: R}",
        "checkpoint: {lineage: {parent_run_id: R}}\nsystem: {input: {warm_start: a}}",
        "model_modifier: {modifiers: [{type: cast, dtype: bf16}]}\ntraining: "
        "{submodules_to_freeze: [a]}",
        "save: {root: a}\nhardware: {paths: {checkpoints: a}}",
        "save: {dir: a}\nhardware: {paths: {checkpoints: a}}",
        "save: {enabled: true}\ndiagnostics: {enable_checkpointing: true}",
        "save: {every_n_steps: 1}\ndiagnostics: {checkpoint: {every_n_train_steps: "
        "{save_frequency: 1, num_models_saved: 1}}}",
        "save: ${x}\ndiagnostics: {enable_checkpointing: true}",
        "training: {run_id: R, checkpoint: {source: {_target_: a.LocalSource, path: p}}}"}) {
    EXPECT_EQ(errors_of(blocks), "old-new-conflict") << blocks;
  }
  // Blocks about other things are no conflict.
  const Config config = config_of(
      "save: {engine: mpio}\ncheckpoint: {source: {path: a}}\nhardware: {paths: {checkpoints: "
      "b}}\ntraining: {submodules_to_freeze: [c], run_id: null}");
  EXPECT_EQ(config.save.root, "b");
  EXPECT_EQ(config.save.engine, EngineKind::mpio);
  EXPECT_EQ(config.source, Source(LocalSource{"a"}));
  EXPECT_EQ(config_of("save:\n  # mine\n  engine: mpio\nhardware:\n  paths:\n    checkpoints: b\n")
                .save.root,
            "b");
  EXPECT_EQ(config_of("save:\ncheckpoint: {}\ntraining: {run_id: R}").lineage.resume_run_id, "R");
}

TEST(LegacyConfig, StagesOfClassesBecomeBlocks) {
  const auto stages = [](const std::string& text) {
    return "training:\n  lr: 1\n  checkpoint:\n" + text;
  };
  const std::string c = "_target_: anemoi.training.checkpoint.";
  const Config config =
      config_of(stages("    source: {" + c +
                       "sources.RunSource, run_id: R, fork: true}\n    loading: "
                       "{" +
                       c + "loading.WeightsOnlyLoader}\n    modifiers:\n    - {" + c +
                       "m.FreezingModifierStage, submodules_to_freeze: "
                       "[model.model.encoder], strict: false}\n"));
  EXPECT_EQ(config.source, Source(RunSource{"", "R", true}));
  EXPECT_EQ(config.lineage, (LineageConfig{"", "R"}));
  EXPECT_EQ(config.loading->type, LoadingType::weights_only);
  EXPECT_TRUE(config.loading->strict);
  EXPECT_FALSE(config.loading->reset_progress);
  EXPECT_EQ(config.modifiers.at(0), Modifier(FreezeModifier{{"model.model.encoder"}}));
  const Config https = config_of(stages(
      "    source: {" + c + "HTTPSource, url: 'https://h/x', max_retries: 5}\n    loading: {" + c +
      "TransferLearningLoader, skip_mismatched: false}\n"));
  EXPECT_EQ(std::get<HttpSource>(*https.source).fetch.max_retries, 5);
  EXPECT_FALSE(https.loading->skip_mismatched);
  EXPECT_EQ(config_of(stages("    source: {" + c + "S3Source, url: 's3://b/k/l'}\n    loading: {" +
                             c + "ColdStartLoader, strict: no}\n"))
                .source,
            Source(S3Source{"b", "k/l"}));
  EXPECT_EQ(errors_of(stages("    source: {" + c + "LocalSource, path: p}\n")), "loader-missing");
  EXPECT_EQ(errors_of(stages("    source: {" + c + "TapeSource, path: p}\n")), "unknown-class");
  EXPECT_EQ(errors_of(stages("    loading: {" + c + "WarmStartLoader, speed: 1}\n")),
            "unknown-argument");
  EXPECT_EQ(errors_of(stages("    source: {" + c + "LocalSource, path: p}\n    other: 1\n")),
            "unknown-key");
}

}  // namespace
}  // namespace cairn
