// A trainer as docs/guide.md describes it, for tests of whole configurations:
//   cairn-pipeline make DIR WIDTH            saves its model as a checkpoint of one rank
//   cairn-pipeline train CONFIG STEPS WIDTH  loads, trains, and saves as the configuration says;
//   the
//                                            adapters alone as adapters.h5
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/optim/adamw.h>
#include <torch/utils.h>

#include <cairn/torch.hpp>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

namespace {

namespace nn = torch::nn;

struct Block : nn::Module {
  explicit Block(std::int64_t width) {
    norm = register_module("0", nn::LayerNorm(nn::LayerNormOptions({width})));
    linear = register_module("1", nn::Linear(width, width));
  }
  at::Tensor forward(const at::Tensor& x) { return linear(norm(x)); }
  nn::LayerNorm norm{nullptr};
  nn::Linear linear{nullptr};
};

/// The module names of a small graph model, and of the configuration in the documentation.
struct Forecaster : nn::Module {
  explicit Forecaster(std::int64_t width) {
    encoder = register_module("encoder", nn::Linear(6, width));
    processor = register_module("processor", nn::Sequential());
    for (int b = 0; b < 2; ++b) processor->push_back(std::make_shared<Block>(width));
    decoder = register_module("decoder", nn::Linear(width, 5));
    register_buffer("latlons", at::ones({4, 2}));
  }
  at::Tensor forward(const at::Tensor& x) { return decoder(processor->forward(encoder(x)).tanh()); }
  nn::Linear encoder{nullptr}, decoder{nullptr};
  nn::Sequential processor{nullptr};
};

std::map<std::string, at::Tensor> values_of(const Forecaster& model) {
  std::map<std::string, at::Tensor> values;
  for (const auto& item : model.named_parameters()) {
    values[item.key()] = item.value().detach().clone();
  }
  return values;
}

/// The sums over all ranks, as data parallelism wants them.
void add_gradients(const std::vector<at::Tensor>& parameters) {
  for (const at::Tensor& parameter : parameters) {
    at::Tensor grad = parameter.grad();
    if (!grad.defined()) continue;
    MPI_Allreduce(MPI_IN_PLACE, grad.data_ptr(), static_cast<int>(grad.numel()), MPI_FLOAT, MPI_SUM,
                  MPI_COMM_WORLD);
  }
}

void make(const std::string& dir, std::int64_t width) {
  torch::manual_seed(5);
  const Forecaster model(width);
  cairn::Config config;
  config.save.dir = dir;
  cairn::CheckpointManager manager(MPI_COMM_SELF, config);
  fmt::print("made {}\n", manager.save_checkpoint(model, {.global_step = 900}).string());
  manager.close();
}

void train(const std::string& file, std::uint64_t steps, std::int64_t width) {
  cairn::CheckpointManager manager(MPI_COMM_WORLD, cairn::Config::from_file(file));
  const cairn::Comm& comm = manager.comm();
  torch::manual_seed(1);
  Forecaster model(width);
  manager.prepare_model(model);
  auto adapters = manager.adapters();
  std::vector<at::Tensor> trained;
  for (const at::Tensor& parameter : model.parameters()) {
    if (parameter.requires_grad()) trained.push_back(parameter);
  }
  torch::optim::AdamW optimizer(trained, torch::optim::AdamWOptions(1e-2));
  auto pending = manager.load_checkpoint_async(model, optimizer);
  const auto context = pending.get();
  const auto loaded = values_of(model);
  const auto say = [&](const std::string& text) {
    if (comm.is_root()) fmt::print("{}\n", text);
  };
  say(fmt::format("loaded step={} tensors={} matched={} missing={} optimizer={} fetched={}",
                  context.global_step, context.report.loaded.size(),
                  context.report.fraction_matched, context.report.missing.size(),
                  optimizer.state().size(), context.trace.front().bytes));

  std::uint64_t step = context.global_step;
  for (const std::uint64_t end = step + steps; step < end;) {
    torch::manual_seed(static_cast<std::uint64_t>(comm.rank()) + 100 * step);
    const auto input = torch::randn({4, 6});
    adapters.apply();
    optimizer.zero_grad();
    (model.forward(input) - input.sum(1, true)).pow(2).mean().backward();
    add_gradients(trained);
    optimizer.step();
    if (++step % manager.config().save.every_n_steps == 0) {
      manager.save_checkpoint_async(model, optimizer, {.global_step = step});
    }
    manager.poll();
  }
  manager.wait();
  manager.export_model("adapters.h5", model, cairn::ModelExport::adapters);
  std::vector<std::string> changed;
  double sum = 0;
  for (const auto& [name, value] : values_of(model)) {
    if (!value.equal(loaded.at(name))) changed.push_back(name);
    sum += value.abs().sum().item<double>();
  }
  say(fmt::format("done step={} sum={:.17g} changed={}", step, sum, fmt::join(changed, ",")));
  manager.close();
}

}  // namespace

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
  const std::vector<std::string> words(argv + 1, argv + argc);
  int code = 2;
  try {
    if (words.at(0) == "make") {
      make(words.at(1), std::stoll(words.at(2)));
    } else {
      train(words.at(1), std::stoull(words.at(2)), std::stoll(words.at(3)));
    }
    code = 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "cairn-pipeline: {}\n", error.what());
    std::fflush(stderr);
    MPI_Abort(MPI_COMM_WORLD, code);
  }
  MPI_Finalize();
  return code;
}
