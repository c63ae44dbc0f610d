#include <torch/optim/adam.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "torch/toy.hpp"

// A program whose modules have got other names since: it loads through migrations, and what it
// saves says so from then on.
namespace cairn::test {
namespace {

namespace fs = std::filesystem;
namespace optim = torch::optim;

/// A model of one layer, called as the program's code has it.
struct Coder : Bag {
  Coder(const std::string& name, double first) {
    layer = register_module(name, std::make_shared<Bag>());
    weight = layer->register_parameter("weight", counting({4, 3}, first) * 0.01);
  }
  std::shared_ptr<Bag> layer;
  at::Tensor weight;
};

optim::Adam adam(const Coder& model) {
  return optim::Adam(model.parameters(), optim::AdamOptions(0.05));
}

void step(const Coder& model, optim::Adam& optimizer) {
  optimizer.zero_grad();
  (counting({2, 4}).matmul(model.weight) - 1).pow(2).sum().backward();
  optimizer.step();
}

/// The weight and what Adam knows of it.
std::vector<std::string> all_of(const Coder& model, optim::Adam& optimizer) {
  const auto& state = static_cast<const optim::AdamParamState&>(
      *optimizer.state().at(c10::guts::to_string(model.weight.unsafeGetTensorImpl())));
  return {bytes_of(model.weight), bytes_of(state.exp_avg()), bytes_of(state.exp_avg_sq()),
          std::to_string(state.step())};
}

/// A directory of one migration.
fs::path steps(const std::string& text) {
  const fs::path folder = scratch();
  agree(world(), "test", [&] {
    if (world().is_root()) std::ofstream(folder / "1_test.yaml") << "version: 1\nsteps:\n" << text;
  });
  return folder;
}

CheckpointManager manager_of(const fs::path& from, const fs::path& migrations) {
  Config config = config_for(scratch());
  config.source = LocalSource{from};
  config.migrations = migrations;
  return CheckpointManager(world().raw(), config);
}

/// The migrations that a checkpoint says it has behind it.
std::vector<std::string> history_of(const fs::path& path) {
  const auto documents = open_checkpoint(world(), path).documents;
  std::vector<std::string> names;
  if (!documents.contains("migrations")) return names;
  const auto document = nlohmann::json::parse(documents.at("migrations"));
  for (const auto& entry : document.at("history")) {
    names.push_back(entry.at("name").get<std::string>());
  }
  return names;
}

struct Old {
  Coder model{"encoder", 1};
  optim::Adam optimizer = adam(model);
  fs::path path;
  Old() {
    step(model, optimizer);
    auto manager = manager_in(scratch());
    path = manager.save_checkpoint(model, optimizer, {.global_step = 12});
    manager.close();
  }
};

const std::vector<std::string> kOnce{"1_test"};

TEST(Migrations, ARunGoesOnUnderNewNamesAndItsCheckpointsSaySo) {
  Old old;
  const fs::path migrations = steps("  - {type: rename, names: {encoder: enc}}\n");
  Coder model("enc", 2);
  auto optimizer = adam(model);
  auto manager = manager_of(old.path, migrations);
  EXPECT_EQ(manager.load_checkpoint(model, optimizer).global_step, 12U);
  EXPECT_EQ(all_of(model, optimizer), all_of(old.model, old.optimizer));
  step(model, optimizer);
  const auto first = manager.save_checkpoint(model, optimizer, {.global_step = 13});
  EXPECT_EQ(history_of(first), kOnce);
  manager.close();

  // A step that finds nothing is an error: it is not carried out again.
  fs::path newest = first;
  for (const fs::path& known : {migrations, fs::path(), fs::path(), migrations}) {
    Coder next("enc", 3);
    auto stepping = adam(next);
    auto resumed = manager_of(newest, known);
    resumed.load_checkpoint(next, stepping);
    EXPECT_EQ(all_of(next, stepping), all_of(model, optimizer));
    newest = resumed.save_checkpoint(next, stepping, {.global_step = 14});
    EXPECT_EQ(history_of(newest), kOnce) << known;
    const auto exported = newest.parent_path() / "weights.h5";
    resumed.export_model(exported, next, ModelExport::weights);
    EXPECT_EQ(history_of(exported), kOnce) << known;
    resumed.close();
  }
}

TEST(Migrations, WhatIsSavedHasTheHistoryOfWhatWasLoadedLast) {
  Old old;
  const fs::path migrations = steps("  - {type: rename, names: {encoder: enc}}\n");
  Coder model("enc", 2);
  auto manager = manager_of(old.path, migrations);
  manager.load_checkpoint(model);
  const auto migrated = manager.save_checkpoint(model, {.global_step = 13});
  manager.close();
  auto other = manager_of(migrated, {});
  other.load_checkpoint(model);
  Coder of_old("encoder", 3);
  other.set_source(LocalSource{old.path});
  other.load_checkpoint(of_old);
  EXPECT_TRUE(history_of(other.save_checkpoint(of_old, {.global_step = 14})).empty());
  other.close();
}

TEST(Migrations, AStepThatFailsChangesNothing) {
  Old old;
  Coder model("enc", 2);
  auto optimizer = adam(model);
  step(model, optimizer);
  const auto before = all_of(model, optimizer);
  auto manager = manager_of(old.path, steps("  - {type: rename, names: {encodr: enc}}\n"));
  const auto text =
      expect_same_error(Errc::not_found, [&] { manager.load_checkpoint(model, optimizer); });
  for (const char* word : {"1_test.yaml:3", "'encodr'", "encoder"}) {
    EXPECT_NE(text.find(word), std::string::npos) << text;
  }
  EXPECT_EQ(all_of(model, optimizer), before);
  manager.close();
}

}  // namespace
}  // namespace cairn::test
