#include "cairn/legacy.hpp"

#include <torch/optim/sgd.h>

#include "torch/legacy.hpp"
#include "torch/toy.hpp"

// From 1.1 on these calls are deprecated, which is their users' affair.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

// The functions of the legacy system. That each release offers them as it should is in
// tests/package/legacy_test.py.
namespace cairn::test {
namespace {

namespace fs = std::filesystem;

/// `same` fits every model of these tests; `head` has a width of its own.
Bag model_of(double first, std::int64_t width = 2, const std::string& last = "bias") {
  Bag bag;
  bag.register_parameter("same", counting({3}, first));
  bag.register_parameter("head", counting({width}, first + 10));
  bag.register_parameter(last, counting({2}, first + 20));
  return bag;
}

at::Tensor value(const Bag& bag, const std::string& name) { return bag.named_parameters()[name]; }

fs::path saved(const torch::nn::Module& model) {
  const auto dir = scratch();
  auto manager = manager_in(dir);
  const auto path = manager.save_checkpoint(model, {.epoch = 4, .global_step = 12});
  manager.close();
  return path;
}

/// What rank 0 was told on stderr while `work` ran.
template <class F>
std::string told_by(F&& work) {
  testing::internal::CaptureStderr();
  work();
  return testing::internal::GetCapturedStderr();
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++found;
  }
  return found;
}

TEST(Legacy, WeightsAloneAreStrictUnlessToldOtherwise) {
  const auto path = saved(model_of(1));
  Bag model = model_of(5, 2, "other");
  const auto before = bytes_of(model);
  expect_same_error(Errc::mismatch, [&] { load_weights_only(world().raw(), model, path); });
  EXPECT_EQ(bytes_of(model), before);
  const auto context = load_weights_only(world().raw(), model, path, /*strict=*/false);
  EXPECT_TRUE(value(model, "same").equal(counting({3}, 1)));
  EXPECT_TRUE(value(model, "other").equal(counting({2}, 25)));
  EXPECT_EQ(context.report.missing, std::vector<std::string>{"model/other"});
  EXPECT_EQ(context.report.unexpected, std::vector<std::string>{"model/bias"});
  EXPECT_EQ(context.epoch, 4U) << "progress is the checkpoint's";
  EXPECT_EQ(context.global_step, 12U);
}

TEST(Legacy, WeightsOfAnotherShapeAreErrorsAlsoWhereNotStrict) {
  const auto path = saved(model_of(1));
  Bag model = model_of(5, 7);
  const auto before = bytes_of(model);
  for (const bool strict : {true, false}) {
    expect_same_error(Errc::mismatch,
                      [&] { load_weights_only(world().raw(), model, path, strict); });
  }
  EXPECT_EQ(bytes_of(model), before);
}

TEST(Legacy, WeightsAreConvertedIntoTheModelsDtypes) {
  Bag wide;
  wide.register_parameter("weight", counting({3}, 0.5).to(at::kDouble));
  Bag model = bag_with(counting({3}, 9));
  const auto context = load_weights_only(world().raw(), model, saved(wide));
  EXPECT_TRUE(value(model, "weight").equal(counting({3}, 0.5)));
  EXPECT_EQ(context.report.cast.size(), 1U);
}

TEST(Legacy, TransferTakesWhatIsThereInTheSameShape) {
  const auto path = saved(model_of(1));
  Bag model = model_of(5, 7, "other");
  const auto report = transfer_learning(world().raw(), model, path).report;
  EXPECT_TRUE(value(model, "same").equal(counting({3}, 1)));
  EXPECT_TRUE(value(model, "head").equal(counting({7}, 15)));
  EXPECT_TRUE(value(model, "other").equal(counting({2}, 25)));
  EXPECT_EQ(report.loaded, std::vector<std::string>{"model/same"});
  ASSERT_EQ(report.mismatched.size(), 1U);
  EXPECT_EQ(report.mismatched[0].name, "model/head");

  // Told not to skip, it refuses other shapes, but never names.
  Bag refused = model_of(5, 7);
  const auto before = bytes_of(refused);
  expect_same_error(Errc::mismatch, [&] {
    transfer_learning(world().raw(), refused, path, /*skip_mismatched=*/false);
  });
  EXPECT_EQ(bytes_of(refused), before);
  Bag named = model_of(5, 2, "other");
  transfer_learning(world().raw(), named, path, /*skip_mismatched=*/false);
  EXPECT_TRUE(value(named, "head").equal(counting({2}, 11)));
}

TEST(Legacy, NothingThatFitsIsAnErrorNotAFreshModel) {
  const auto path = saved(bag_with(counting({3})));
  Bag model = model_of(5);
  const auto before = bytes_of(model);
  const auto text =
      expect_same_error(Errc::mismatch, [&] { transfer_learning(world().raw(), model, path); });
  EXPECT_NE(text.find("nothing of"), std::string::npos) << text;
  EXPECT_EQ(bytes_of(model), before);
}

TEST(Legacy, AnAdapterLeavesTheManagersOwnSettingsAlone) {
  const auto other = saved(model_of(50));
  const auto path = saved(model_of(1));
  Config config = config_for(scratch());
  config.source = LocalSource{other};
  config.loading = LoadingConfig{.type = LoadingType::cold_start};
  config.modifiers = {FreezeModifier{{"head"}}};
  CheckpointManager manager(world().raw(), config);
  const LegacyAdapter adapter(manager);
  Bag model = model_of(5);
  const auto context = adapter.load_weights_only(model, path);
  EXPECT_TRUE(value(model, "same").equal(counting({3}, 1)));
  EXPECT_TRUE(value(model, "head").requires_grad());
  EXPECT_EQ(context.global_step, 12U);
  expect_same_error(Errc::not_found, [&] { adapter.transfer_learning(model, "/no/such/file"); });
  EXPECT_EQ(adapter.transfer_learning(model, path).report.loaded.size(), 3U);

  // What is saved from here on descends from what was loaded.
  manager.save_checkpoint(model, {.global_step = 1});
  EXPECT_EQ(manager.config().loading->type, LoadingType::cold_start);
  EXPECT_EQ(manager.load_checkpoint(model).global_step, 0U);
  EXPECT_TRUE(value(model, "same").equal(counting({3}, 50)));
  EXPECT_FALSE(value(model, "head").requires_grad());
  manager.set_source(LocalSource{config.save.dir});
  EXPECT_EQ(manager.load_checkpoint(model).lineage.parent_uuid, context.lineage.uuid);
  manager.close();
}

TEST(Legacy, EachPlaceIsToldOfOnce) {
  const auto path = saved(model_of(1));
  Bag model = model_of(5);
  const auto from = [&](std::source_location where) {
    detail::legacy_load(world().raw(), model, path, detail::legacy_weights_only(false),
                        {"load_weights_only", where, /*warns=*/true});
  };
  const auto here = std::source_location::current();
  const auto there = std::source_location::current();
  const std::string told = told_by([&] {
    for (int i = 0; i < 3; ++i) from(here);
    from(there);
  });
  EXPECT_EQ(count(told, "is deprecated"), world().is_root() ? 2U : 0U) << told;
  if (world().is_root()) {
    const std::string place = "legacy_test.cpp:" + std::to_string(there.line()) + ": ";
    EXPECT_EQ(count(told, place + "load_weights_only"), 1U) << told;
  }
  // Before 1.1 nothing is told.
  const bool warns = CAIRN_VERSION_MAJOR > 1 || (CAIRN_VERSION_MAJOR == 1 && CAIRN_VERSION_MINOR);
  const std::string plain = told_by([&] { load_weights_only(world().raw(), model, path); });
  EXPECT_EQ(count(plain, "is deprecated"), warns && world().is_root() ? 1U : 0U) << plain;
}

TEST(Legacy, WhatIsToldCanBePasted) {
  const fs::path path = "runs/${a}/\"b\": #1.ckpt";
  for (const LoadingConfig& loading :
       {detail::legacy_weights_only(true), detail::legacy_weights_only(false),
        detail::legacy_transfer_learning(true), detail::legacy_transfer_learning(false)}) {
    const std::string yaml = detail::legacy_replacement(path, loading);
    const Config config = Config::from_string(yaml);
    EXPECT_EQ(std::get<LocalSource>(config.source.value()).path, path) << yaml;
    EXPECT_EQ(config.loading, loading) << yaml;
    const std::string warning = detail::legacy_warning(
        {"transfer_learning", std::source_location::current()}, path, loading);
    EXPECT_NE(warning.find(yaml), std::string::npos);
  }
}

}  // namespace
}  // namespace cairn::test
