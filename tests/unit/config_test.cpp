#include "cairn/config.hpp"

#include <gtest/gtest.h>

#include "cairn/error.hpp"

namespace cairn {
namespace {

std::string error_of(const std::string& yaml) {
  try {
    Config::from_string(yaml, "test.yaml");
  } catch (const Error& error) {
    return std::string(to_string(error.code())) + " " + error.what();
  }
  return "no error";
}

TEST(Config, SavesInTheBackgroundAreAWordOrAMapping) {
  EXPECT_FALSE(Config::from_string("save: {async: false}").save.async.has_value());
  EXPECT_EQ(Config::from_string("save: {async: true}").save.async->when_busy, WhenBusy::wait);
  const auto async = Config::from_string(
                         "save: {async: {budget_bytes: 33554432, when_busy: queue, on_failure: "
                         "retry}}")
                         .save.async;
  EXPECT_EQ(async->budget_bytes, 33554432U);
  EXPECT_EQ(async->when_busy, WhenBusy::queue);
  EXPECT_EQ(async->on_failure, OnFailure::retry);
  EXPECT_NE(error_of("save:\n  async: {when_busy: never}").find("'wait' or 'skip' or 'queue'"),
            std::string::npos);
  EXPECT_NE(error_of("save: {async: maybe}").find("true, false or a mapping"), std::string::npos);
}

TEST(Config, ReadsSaveAndLocalSource) {
  const Config config = Config::from_string(
      "checkpoint:\n  source: {type: local, path: runs/a}\n"
      "save: {dir: runs/b, every_n_steps: 10, engine: mpio, transfer: independent, durable: "
      "false}\n");
  EXPECT_EQ(config.source->path, "runs/a");
  EXPECT_EQ(config.save.dir, "runs/b");
  EXPECT_EQ(config.save.every_n_steps, 10U);
  EXPECT_EQ(config.save.engine, EngineKind::mpio);
  EXPECT_EQ(config.save.transfer, Transfer::independent);
  EXPECT_FALSE(config.save.durable);
  EXPECT_FALSE(config.save.statistics);
  EXPECT_EQ(config.save.replica_check, ReplicaCheck::off);
  EXPECT_FALSE(config.save.async.has_value());
  EXPECT_FALSE(Config::from_string("").source.has_value());
}

TEST(Config, ReadsWhatToLookAtWhileSaving) {
  const Config config = Config::from_string("save: {statistics: true, replica_check: sample}");
  EXPECT_TRUE(config.save.statistics);
  EXPECT_EQ(config.save.replica_check, ReplicaCheck::sample);
  EXPECT_EQ(Config::from_string("save: {replica_check: full}").save.replica_check,
            ReplicaCheck::full);
  EXPECT_EQ(error_of("save: {replica_check: some}"),
            "usage test.yaml:1: 'save.replica_check' must be 'off' or 'sample' or 'full'");
}

TEST(Config, ErrorsNameFileLineKeyAndTheNearestKey) {
  EXPECT_EQ(error_of("save:\n  dir: a\n  engin: direct\n"),
            "usage test.yaml:3: 'save.engin' is unknown; did you mean 'engine'?");
  EXPECT_EQ(error_of("save: {every_n_steps: often}\n"),
            "usage test.yaml:1: 'save.every_n_steps' must be a number of steps");
  EXPECT_NE(error_of("save: {engine: fast}").find("direct and mpio"), std::string::npos);
  EXPECT_NE(error_of("save: [1").find("not valid YAML"), std::string::npos);
  EXPECT_EQ(error_of("- 1"), "usage test.yaml:1: the document must be a mapping");
  EXPECT_EQ(error_of("checkpoint:\n  source:\n    type: local\n"),
            "usage test.yaml:3: 'checkpoint.source' needs a 'path'");
}

TEST(Config, WhatThisVersionDoesNotActOnIsRefused) {
  EXPECT_EQ(
      error_of("pipeline: {timeout: 1}"),
      "unsupported test.yaml:1: 'pipeline' is not supported by this version of cairn; remove it");
  EXPECT_EQ(
      error_of("checkpoint:\n  source: {type: s3, bucket: b}\n"),
      "unsupported test.yaml:2: 'checkpoint.source.type' 's3' is not supported by this version of "
      "cairn; remove it");
}

}  // namespace
}  // namespace cairn
