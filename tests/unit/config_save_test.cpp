// The blocks save and checkpoint.lineage, and what may stand beside cairn's blocks.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "cairn/config.hpp"
#include "pipeline/config_document.hpp"
#include "pipeline/document.hpp"
#include "support/config_errors.hpp"

namespace cairn {
namespace {

TEST(ConfigSave, LineageTellsWhereTheRunSaves) {
  const Config config = Config::from_string(
      "checkpoint: {source: {type: run, run_id: a}, lineage: {resume_run_id: a, parent_run_id: "
      "b}}\nsave: {root: runs}");
  EXPECT_EQ(config.lineage, (LineageConfig{"a", "b"}));
  EXPECT_EQ(config.source, Source(RunSource{"runs", "a"}));
  EXPECT_EQ(config.save.dir, "runs/a");
  const Config other = Config::from_string(
      "checkpoint: {source: {type: run, root: r, run_id: a, file: x.ckpt}, lineage: "
      "{resume_run_id: a}}\nsave: {root: runs, dir: d}");
  EXPECT_EQ(other.source, Source(RunSource{"r", "a", false, "x.ckpt"}));
  EXPECT_EQ(other.save.dir, "d");
  EXPECT_TRUE(Config::from_string("save: {root: runs}").save.dir.empty());
  EXPECT_EQ(error_of("checkpoint: {lineage: {resume_run_id: ../a}}"),
            "usage test.yaml:1: 'checkpoint.lineage.resume_run_id' must be a run's id, not a path");
}

TEST(ConfigSave, TriggersSayWhenToSave) {
  const std::string triggers =
      "triggers: [{unit: minutes, save_frequency: 30, num_models_saved: 3}, {unit: train_steps, "
      "save_frequency: 1_000, num_models_saved: -1}, {unit: epochs, save_frequency: 1}]";
  const SaveConfig save = Config::from_string("save: {" + triggers + "}").save;
  EXPECT_EQ(save.triggers, (std::vector<SaveTrigger>{{SaveUnit::minutes, 30, 3},
                                                     {SaveUnit::train_steps, 1000, -1},
                                                     {SaveUnit::epochs, 1, -1}}));
  EXPECT_EQ(save.every_n_steps, 1000U);
  EXPECT_EQ(save.every_n_epochs, 1U);
  EXPECT_EQ(save.every_minutes, 30);
  EXPECT_EQ(Config::from_string("save: {every_n_steps: 1000, " + triggers + "}").save.triggers,
            save.triggers);
  EXPECT_EQ(error_of("save: {every_n_steps: 7, " + triggers + "}"),
            "usage test.yaml:1: 'save.triggers[1].unit' is to save every 1000, but "
            "save.every_n_steps says 7; give one of them");
  EXPECT_EQ(error_of("save: {triggers: [{unit: epochs, save_frequency: 1}, {unit: epochs, "
                     "save_frequency: 2}]}"),
            "usage test.yaml:1: 'save.triggers[1].unit' has another trigger, save.triggers[0]; "
            "give a unit one");
  const SaveConfig off = Config::from_string("save: {enabled: no, " + triggers + "}").save;
  EXPECT_FALSE(off.enabled);
  EXPECT_TRUE(off.triggers.empty());
  EXPECT_EQ(off.every_n_steps, 0U);
  EXPECT_EQ(off.every_n_epochs, 0U);
  EXPECT_EQ(off.every_minutes, 0);
  EXPECT_EQ(Config::from_string("save: {name_templates: {epochs: 'e-{epoch:03d}'}}")
                .save.name_templates.at(SaveUnit::epochs),
            "e-{epoch:03d}");
  EXPECT_EQ(error_of("save: {triggers: [{unit: epochs, save_frequency: 1, num_models_saved: -2}]}"),
            "usage test.yaml:1: 'save.triggers[0].num_models_saved' must be a number of "
            "checkpoints, or -1");
  EXPECT_TRUE(
      holds(error_of("save: {triggers: [{unit: epochs, save_frequency: 0}]}"), "a number from 1"));
  EXPECT_TRUE(holds(error_of("save: {keep_last: -1}"), "a number of checkpoints"));
}

TEST(ConfigSave, TheOnlyTriggerSaysHowManyStay) {
  const auto kept = [](const std::string& save) {
    const Config config = Config::from_string("save: {" + save + "}");
    EXPECT_NO_THROW(detail::check(config, "again")) << save;
    return std::pair(config.save.retention.keep_last, detail::idle_keys(config.save).size());
  };
  using Kept = std::pair<std::uint64_t, std::size_t>;
  const auto trigger = [](const std::string& unit, int n) {
    return fmt::format("{{unit: {}, save_frequency: 30, num_models_saved: {}}}", unit, n);
  };
  const std::string three = "triggers: [" + trigger("minutes", 3) + "]";
  EXPECT_EQ(kept(three), (Kept{3, 0}));
  EXPECT_EQ(kept("every_minutes: 30, " + three), (Kept{3, 0}));
  EXPECT_EQ(kept("keep_last: 5, " + three), (Kept{5, 0}));
  EXPECT_EQ(kept("triggers: [" + trigger("epochs", 0) + "]"), (Kept{1, 0}));  // the last one
  EXPECT_EQ(kept("triggers: [" + trigger("train_steps", -1) + "]"), (Kept{0, 0}));
  EXPECT_EQ(kept("keep_every_n_steps: 90, " + three), (Kept{3, 0}));
  // What others save would not be these three.
  for (const std::string& more : {std::string("every_n_steps: 5"), std::string("every_n_epochs: 5"),
                                  std::string("monitor: loss")}) {
    EXPECT_EQ(kept(more + ", " + three), (Kept{0, 1})) << more;
  }
  EXPECT_EQ(kept("triggers: [" + trigger("minutes", 3) + ", " + trigger("epochs", -1) + "]"),
            (Kept{0, 1}));
  EXPECT_EQ(kept("enabled: no, " + three), (Kept{0, 0}));
  EXPECT_EQ(kept("name_templates: {epochs: e}"), (Kept{0, 1}));
}

TEST(ConfigSave, TheHomeDirectoryIsMeantWhereFilesAreSaved) {
  const std::string home = std::getenv("HOME");
  const Config config = Config::from_string(
      "checkpoint: {source: {type: run, run_id: a}, lineage: {resume_run_id: b}}\nsave: {root: "
      "~/runs}");
  EXPECT_EQ(config.save.root, home + "/runs");
  EXPECT_EQ(config.save.dir, home + "/runs/b");
  EXPECT_EQ(Config::from_string("save: {dir: '~'}").save.dir, home);
  EXPECT_TRUE(holds(error_of("save: {dir: ~somebody/runs}"), "another user's home"));
}

TEST(ConfigSave, BlocksAtTheWrongLevelAreNoOtherProgramsSections) {
  for (const auto& [name, meant] :
       {std::pair("modifiers", "model_modifier.modifiers"),
        std::pair("modifier", "model_modifier.modifiers"),
        std::pair("loading", "checkpoint.loading"), std::pair("source", "checkpoint.source"),
        std::pair("lineage", "checkpoint.lineage"), std::pair("triggers", "save.triggers"),
        std::pair("async", "save.async"), std::pair("chckpnt", "checkpoint"),
        std::pair("model_modifer", "model_modifier")}) {
    EXPECT_EQ(error_of(std::string(name) + ": {a: 1}"),
              fmt::format("usage test.yaml:1: '{}' is unknown; did you mean '{}'?", name, meant));
  }
  for (const std::string name : {"model", "data", "training", "dataloader", "force", "resource",
                                 "checkpointing", "trainer", "diagnostics"}) {
    EXPECT_EQ(error_of(name + ": {a: 1}"), "no error");
  }
}

TEST(ConfigSave, RetentionSaysWhatStays) {
  const SaveConfig save = Config::from_string(
                              "save: {keep_last: 3, keep_every_n_steps: 1_000, keep_best: {k: 2, "
                              "metric: val_loss, mode: max}, lease: no, max_restarts: 0}")
                              .save;
  EXPECT_EQ(save.retention, (RetentionPolicy{3, 1000, {2, "val_loss", MetricOrder::max}}));
  EXPECT_FALSE(save.lease);
  EXPECT_EQ(save.max_restarts, 0U);
  const SaveConfig plain = Config::from_string("save: {keep_every_n_steps: 0}").save;
  EXPECT_EQ(plain.retention, RetentionPolicy{});
  EXPECT_TRUE(plain.lease);
  EXPECT_EQ(plain.max_restarts, 5U);
  // Without keep_last all stay, whatever these say: they would promise what does not happen.
  for (const char* rule : {"keep_every_n_steps: 5", "keep_best: {k: 1, metric: m, mode: min}"}) {
    EXPECT_TRUE(holds(error_of(fmt::format("save: {{{}}}", rule)), "needs save.keep_last")) << rule;
  }
  EXPECT_TRUE(holds(error_of("save: {keep_last: 1, keep_best: {k: 1, mode: min}}"), "metric"));
  EXPECT_TRUE(holds(error_of("save: {keep_last: 1, keep_best: {k: 0, metric: m, mode: min}}"),
                    "a number from 1"));
  EXPECT_FALSE(source_settings(Config::from_string("pipeline: {fallback: no}")).fallback);
  EXPECT_TRUE(source_settings(Config{}).fallback);
}

TEST(ConfigSave, SaysWhatATrainerDoesByItself) {
  const SaveConfig save =
      Config::from_string(
          "save: {every_n_epochs: 2, every_minutes: 0.5, monitor: acc, mode: max, save_top_k: 3, "
          "preemption: {signals: false, time_limit: 3600, lead: 90, grace: 30}}")
          .save;
  EXPECT_EQ(save.every_n_epochs, 2U);
  EXPECT_EQ(save.every_minutes, 0.5);
  EXPECT_EQ(save.monitor, "acc");
  EXPECT_EQ(save.mode, MetricOrder::max);
  EXPECT_EQ(save.save_top_k, 3U);
  EXPECT_EQ(save.preemption, (PreemptionConfig{false, 3600, 90, 30}));
  EXPECT_EQ(Config::from_string("save: {dir: a}").save.preemption, PreemptionConfig{});
  EXPECT_TRUE(holds(error_of("save: {save_top_k: 0}"), "a number from 1"));
  EXPECT_TRUE(holds(error_of("save: {preemption: {time_limit: 0}}"), "a number of seconds"));
  EXPECT_EQ(Config::from_string("checkpoint: {loading: {type: warm_start, rescale_lr: sqrt}}")
                .loading->rescale_lr,
            RescaleRate::sqrt);
}

TEST(ConfigSave, SectionsOfOtherProgramsMayStandBeside) {
  const Config config = Config::from_string(
      "defaults: [a, _self_]\ntraining: {lr: '${no.such.thing}', seed: \"${now:%Y}\"}\n"
      "system: {root: /out, gpus: '${oc.env:CAIRN_TEST_UNSET}'}\nconfig_validation: false\n"
      "save: {dir: '${system.root}/run'}\n");
  EXPECT_EQ(config.save.dir, "/out/run");
  for (const auto& [wrong, meant] : {std::pair{"sav", "save"},
                                     {"saves", "save"},
                                     {"chekpoint", "checkpoint"},
                                     {"checkpoints", "checkpoint"},
                                     {"Pipeline", "pipeline"},
                                     {"model_modifiers", "model_modifier"},
                                     {"model-modifier", "model_modifier"}}) {
    EXPECT_EQ(error_of(fmt::format("training: {{}}\n{}: {{}}", wrong)),
              fmt::format("usage test.yaml:2: '{}' is unknown; did you mean '{}'?", wrong, meant));
  }
  // What a block refers to must have a value, wherever it stands.
  EXPECT_TRUE(holds(error_of("training: {dir: '${now:}'}\nsave: {dir: '${training.dir}'}"),
                    "uses the resolver 'now'"));
}

TEST(ConfigSave, SavesInTheBackgroundAreAWordOrAMapping) {
  EXPECT_FALSE(Config::from_string("save: {async: false}").save.async.has_value());
  EXPECT_EQ(Config::from_string("save: {async: true}").save.async->when_busy, WhenBusy::wait);
  const auto async = Config::from_string(
                         "save: {async: {budget_bytes: 33554432, when_busy: queue, on_failure: "
                         "retry}}")
                         .save.async;
  EXPECT_EQ(async->budget_bytes, 33554432U);
  EXPECT_EQ(async->when_busy, WhenBusy::queue);
  EXPECT_EQ(async->on_failure, OnFailure::retry);
  EXPECT_TRUE(holds(error_of("save:\n  async: {when_busy: never}"), "'wait' or 'skip' or 'queue'"));
  EXPECT_TRUE(holds(error_of("save: {async: maybe}"), "true, false or a mapping"));
}

TEST(ConfigSave, WhatTheFirstSaveWouldRefuseIsRefusedAtOnce) {
  EXPECT_EQ(error_of("save:\n  engine: mpio\n  async: true"),
            "usage test.yaml:3: 'save.async' needs 'engine: direct': mpio does not save in the "
            "background");
  EXPECT_TRUE(holds(error_of("save: {engine: mpio, async: {when_busy: skip}}"), "'save.async'"));
  EXPECT_EQ(error_of("save: {engine: mpio, async: false}"), "no error");
  EXPECT_EQ(error_of("save:\n  engine: direct\n  mpio:\n    deflate: 1"),
            "usage test.yaml:4: 'save.mpio.deflate' needs 'engine: mpio': no other engine "
            "compresses; 0 switches it off");
  EXPECT_EQ(error_of("save: {mpio: {deflate: 0, shuffle: true}}"), "no error");
  EXPECT_EQ(error_of("save:\n  async:\n    budget_bytes: 16_777_215"),
            "usage test.yaml:3: 'save.async.budget_bytes' must be at least 16777216, or 0 for what "
            "fits");
  EXPECT_EQ(error_of("save: {async: {budget_bytes: 16_777_216}}"), "no error");
  // A program's own settings are held to the same.
  Config config;
  config.save.async.emplace().budget_bytes = 1;
  try {
    detail::check(config, "the settings");
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_TRUE(std::string(error.what()).starts_with("the settings: 'save.async.budget_bytes'"))
        << error.what();
  }
}

TEST(ConfigSave, ReadsSave) {
  const Config config = Config::from_string(
      "save: {dir: runs/b, every_n_steps: 10, engine: mpio, transfer: independent, durable: "
      "false, statistics: true, replica_check: sample, delta: true}\n");
  EXPECT_EQ(config.save.dir, "runs/b");
  EXPECT_EQ(config.save.every_n_steps, 10U);
  EXPECT_EQ(config.save.engine, EngineKind::mpio);
  EXPECT_EQ(config.save.transfer, Transfer::independent);
  EXPECT_FALSE(config.save.durable);
  EXPECT_TRUE(config.save.statistics);
  EXPECT_EQ(config.save.replica_check, ReplicaCheck::sample);
  EXPECT_TRUE(config.save.delta);
  EXPECT_EQ(Config::from_string("save: {replica_check: full}").save.replica_check,
            ReplicaCheck::full);
  EXPECT_EQ(error_of("save: {replica_check: some}"),
            "usage test.yaml:1: 'save.replica_check' must be 'off' or 'sample' or 'full'");
}

TEST(ConfigSave, ReadsTheSettingsOfMpio) {
  const MpioOptions mpio =
      Config::from_string(
          "save: {engine: mpio, mpio: {hints: {cb_nodes: 2, romio_cb_write: enable}, component: "
          "romio, watchdog: 1.5, deflate: 4, shuffle: false}}")
          .save.mpio;
  EXPECT_EQ(mpio.hints,
            (std::map<std::string, std::string>{{"cb_nodes", "2"}, {"romio_cb_write", "enable"}}));
  EXPECT_EQ(mpio.component, IoComponent::romio);
  EXPECT_EQ(mpio.watchdog, std::chrono::milliseconds(1500));
  EXPECT_EQ(mpio.deflate, 4U);
  EXPECT_FALSE(mpio.shuffle);
  EXPECT_EQ(Config::from_string("save: {mpio: {watchdog: 0}}").save.mpio.watchdog,
            std::chrono::milliseconds(0));
  const MpioOptions plain = Config::from_string("save: {mpio: {hints: {}}}").save.mpio;
  EXPECT_TRUE(plain.hints.empty());
  EXPECT_EQ(plain.component, IoComponent::automatic);
  EXPECT_FALSE(plain.watchdog.has_value());
  EXPECT_EQ(plain.deflate, 0U);
  EXPECT_TRUE(plain.shuffle);
  EXPECT_TRUE(holds(error_of("save: {mpio: {deflate: 10}}"), "a level from 0 to 9"));
  EXPECT_EQ(error_of("save: {mpio: {hints: [a]}}"),
            "usage test.yaml:1: 'save.mpio.hints' must be a mapping of names to texts");
  EXPECT_EQ(error_of("save:\n  mpio:\n    hints:\n      cb_nodes: [1]"),
            "usage test.yaml:4: 'save.mpio.hints.cb_nodes' must be a text");
  EXPECT_TRUE(holds(error_of("save: {mpio: {component: fast}}"), "'auto' or 'ompio' or 'romio'"));
}

}  // namespace
}  // namespace cairn
