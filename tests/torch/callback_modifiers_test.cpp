#include <torch/optim/sgd.h>

#include <string>
#include <vector>

#include "cairn/callback.hpp"
#include "torch/network.hpp"
#include "torch/toy.hpp"

// Modifiers in starts that load nothing, and in those that resume.
namespace cairn::test {
namespace {

namespace optim = torch::optim;

using Names = std::vector<std::string>;

/// What a start finds of modifiers, and then does one step and saves.
struct Modified {
  std::vector<std::string> frozen;
  std::vector<std::string> adapters;
  at::ScalarType encoder;
  std::vector<std::string> reported;  ///< types of the context's modifiers
  std::string told;
  std::vector<std::string> values;  ///< at the end

  explicit Modified(const Config& config, bool by_hand = false) {
    CheckpointManager manager(world().raw(), config);
    Network model(1);
    optim::SGD optimizer(model.parameters(),
                         optim::SGDOptions(0.1).momentum(0.5).weight_decay(0.1));
    CheckpointCallback callback(manager, model, optimizer);
    testing::internal::CaptureStderr();
    CheckpointContext context;
    by_hand ? callback.on_train_start(context) : void(context = callback.on_train_start());
    told = testing::internal::GetCapturedStderr();
    frozen = test::frozen(model);
    adapters = manager.adapters().layers();
    encoder = model.encoder->weight.scalar_type();
    for (const ModifierReport& report : context.modifiers) reported.push_back(report.type);
    manager.adapters().apply();
    model.forward(input().to(encoder)).pow(2).sum().backward();
    optimizer.step();
    callback.on_step_end(context.global_step + 1);
    callback.on_train_end();
    values = everything(model);
    manager.close();
    world().all_equal(0);  // the lease is rank 0's to give back
  }
};

TEST(Callback, AStartWithoutACheckpointObeysTheModifiersThatAResumeObeys) {
  register_modifier_type("inert", [](const CustomModifier&, torch::nn::Module&) {
    return [] { return ModifierReport{"inert", {}, ""}; };
  });
  Config config = config_for(scratch());
  config.modifiers = {ResetModifier{{"decoder.norm"}}, FreezeModifier{{"encoder"}},
                      LoraModifier{.rank = 2, .target_modules = {"decoder.inner"}},
                      CustomModifier{"inert"}};
  const Modified first(config);
  EXPECT_EQ(first.frozen, (Names{"encoder.weight", "encoder.bias", "decoder.inner.weight",
                                 "decoder.inner.bias"}));
  EXPECT_EQ(first.adapters, Names{"decoder.inner"});
  EXPECT_EQ(first.reported, (Names{"freeze", "lora"}));
  const auto says = [](const Modified& start, const std::string& what) {
    return start.told.find("cairn: warning: " + what) != std::string::npos;
  };
  EXPECT_EQ(says(first, "nothing is loaded, so modifiers of the types 'reset', 'inert' are"),
            world().is_root())
      << first.told;
  EXPECT_EQ(says(first, "the optimizer was built before"), world().is_root());

  const Modified second(config);
  EXPECT_EQ(second.frozen, first.frozen);
  EXPECT_EQ(second.adapters, first.adapters);
  EXPECT_EQ(second.reported, first.reported);
  EXPECT_FALSE(says(second, "nothing is loaded")) << second.told;
  for (std::size_t i = 0; i < first.values.size(); ++i) {
    if (first.values[i].find(" frozen ") == std::string::npos) continue;
    EXPECT_EQ(second.values[i], first.values[i]);
  }

  config.save.dir = scratch();
  const Modified by_hand(config, /*by_hand=*/true);
  EXPECT_EQ(by_hand.frozen, first.frozen);
  EXPECT_EQ(by_hand.values, first.values);
}

TEST(Callback, AModelThatIsCastIsCastBeforeItsOwnCheckpointIsLoaded) {
  Config config = config_for(scratch());
  config.modifiers = {CastModifier{DType::f64}};
  for (int starts = 0; starts < 3; ++starts) {
    const Modified start(config);
    EXPECT_EQ(start.encoder, at::kDouble);
  }
}

TEST(Callback, AModifierOfWhatTheModelDoesNotHaveIsRefusedAtTheFirstStart) {
  Config config = config_for(scratch());
  config.modifiers = {FreezeModifier{{"encodr"}}};
  CheckpointManager manager(world().raw(), config);
  Network model(1);
  CheckpointCallback callback(manager, model);
  const auto text = expect_same_error(Errc::not_found, [&] { callback.on_train_start(); });
  EXPECT_NE(text.find("encodr"), std::string::npos) << text;
  EXPECT_TRUE(frozen(model).empty());
  manager.close();
}

}  // namespace
}  // namespace cairn::test
