#include "trainer.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <fmt/core.h>
#include <torch/nn/module.h>
#include <torch/optim/adamw.h>
#include <torch/optim/schedulers/step_lr.h>
#include <xxhash.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cairn/callback.hpp"
#include "cairn/torch.hpp"
#include "collectives.hpp"
#include "digest.hpp"
#include "model.hpp"

namespace train_lm {
namespace {

constexpr unsigned kDecaySteps = 10;
constexpr double kDecay = 0.98;

std::int64_t to_signed(std::uint64_t value) { return static_cast<std::int64_t>(value); }

/// The step being saved, for the observer that --die-at installs; it outlives the manager.
struct SaveWatch {
  std::uint64_t step = 0;
};

void reseed(std::uint64_t seed) {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard lock(generator.mutex());
  generator.set_current_seed(seed);
}

std::uint64_t random_state_hash() {
  const at::Tensor state = at::detail::getDefaultCPUGenerator().get_state();
  return XXH3_64bits(state.data_ptr(), state.nbytes());
}

cairn::DType dtype_of(const at::Tensor& tensor) {
  if (tensor.scalar_type() != at::kFloat) {
    throw cairn::Error(cairn::Errc::internal, "the model's tensors are float");
  }
  return cairn::DType::f32;
}

const std::byte* bytes_of(const at::Tensor& tensor) {
  return static_cast<const std::byte*>(tensor.data_ptr());
}

class Trainer {
 public:
  Trainer(const cairn::Comm& comm, const Options& options, const Text& text);
  int run();

 private:
  cairn::ManagerOptions manager_options();
  cairn::Placement placement(const std::string& name, const at::Tensor& tensor) const;
  void make_optimizer();
  void begin();
  void resumed(const cairn::CheckpointContext& context);
  std::string apply_random_rule(const cairn::CheckpointContext& context);
  std::uint64_t random_seed(std::uint64_t step) const;
  double train_step(std::uint64_t step);
  void update();
  void add_progress(cairn::CheckpointInfo& info);
  void finish_step(std::chrono::steady_clock::time_point begun);
  std::string params_digest() const;
  std::string state_digest() const;

  template <class... Args>
  void print(fmt::format_string<Args...> format, Args&&... args) const {
    if (!comm_.is_root()) return;
    fmt::print("{}\n", fmt::format(format, std::forward<Args>(args)...));
    std::fflush(stdout);
  }

  const cairn::Comm& comm_;
  const Options& options_;
  const Text& text_;
  SaveWatch saving_;
  std::shared_ptr<LanguageModel> model_;
  std::vector<at::Tensor> parameters_;
  std::vector<cairn::NamedTensor>
      stepped_;  ///< what the optimizer steps: parameters, or slices of them
  std::unique_ptr<torch::optim::AdamW> optimizer_;
  std::unique_ptr<torch::optim::StepLR> scheduler_;
  std::unique_ptr<cairn::CheckpointManager> manager_;
  std::unique_ptr<cairn::CheckpointCallback> callback_;
  std::uint64_t step_ = 0;
  double loss_ = 0.0;
};

Trainer::Trainer(const cairn::Comm& comm, const Options& options, const Text& text)
    : comm_(comm), options_(options), text_(text) {
  Division division;
  if (options.parallel == Parallel::tp) division = {MPI_COMM_WORLD, comm.size(), comm.rank()};
  const ModelShape shape{to_signed(options.layers), to_signed(options.width),
                         to_signed(options.heads), to_signed(options.context)};
  model_ = std::make_shared<LanguageModel>(shape, division, options.seed);
  parameters_ = model_->parameters();
  make_optimizer();
  manager_ = std::make_unique<cairn::CheckpointManager>(MPI_COMM_WORLD, options.checkpoint,
                                                        manager_options());
  callback_ =
      std::make_unique<cairn::CheckpointCallback>(*manager_, *model_, *optimizer_, *scheduler_);
  callback_->on_save_checkpoint([this](cairn::CheckpointInfo& info) { add_progress(info); });
}

void Trainer::make_optimizer() {
  std::vector<at::Tensor> tensors;
  for (const auto& parameter : model_->named_parameters()) {
    at::Tensor tensor = parameter.value();
    if (options_.parallel == Parallel::zero) {
      // The slice shares the parameter's memory: a step on it is a step on the rank's own copy.
      const auto range = cairn::balanced_range(static_cast<std::uint64_t>(tensor.numel()),
                                               comm_.size(), comm_.rank());
      tensor = tensor.detach().view(-1).narrow(0, to_signed(range.start), to_signed(range.count));
      tensor.requires_grad_(true);
    }
    stepped_.push_back({parameter.key(), tensor});
    tensors.push_back(std::move(tensor));
  }
  optimizer_ =
      std::make_unique<torch::optim::AdamW>(tensors, torch::optim::AdamWOptions(options_.lr));
  scheduler_ = std::make_unique<torch::optim::StepLR>(*optimizer_, kDecaySteps, kDecay);
}

cairn::ManagerOptions Trainer::manager_options() {
  cairn::ManagerOptions manager;
  manager.placement = [this](const std::string& name, const at::Tensor& tensor) {
    return placement(name, tensor);
  };
  if (options_.parallel == Parallel::zero) manager.optimizer_parameters = stepped_;
  if (options_.die_at && options_.die_at->rank == comm_.rank()) {
    manager.progress = [this](const cairn::SaveProgress& progress) {
      if (saving_.step != options_.die_at->step) return;
      const bool half_written = progress.step == cairn::SaveStep::move && progress.bytes_done > 0 &&
                                progress.bytes_done * 2 >= progress.bytes_total;
      // A rank that has nothing to write dies when the others have written.
      if (half_written || progress.step == cairn::SaveStep::durable) std::raise(SIGKILL);
    };
  }
  return manager;
}

/// `name` is `model/<parameter>` or `optimizer/<parameter>/<slot>`.
cairn::Placement Trainer::placement(const std::string& name, const at::Tensor& tensor) const {
  const std::size_t first = name.find('/');
  const std::size_t second = name.find('/', first + 1);
  const bool in_optimizer = name.starts_with("optimizer/") && second != std::string::npos;
  const std::string parameter = name.substr(first + 1, second - first - 1);
  const auto found = model_->placements().find(parameter);
  if (found == model_->placements().end() || (in_optimizer && name.ends_with("/step"))) {
    return cairn::Placement::replicated({tensor.sizes().begin(), tensor.sizes().end()});
  }
  if (in_optimizer && options_.parallel == Parallel::zero) {
    return cairn::Placement::flat_split(found->second.global_shape, comm_.size(), comm_.rank());
  }
  return found->second;
}

std::uint64_t Trainer::random_seed(std::uint64_t step) const {
  // Divided weights need equal dropout masks on all ranks; divided batches need different ones.
  const bool equal = options_.parallel == Parallel::tp;
  return mix(options_.seed, step, equal ? 0 : static_cast<std::uint64_t>(comm_.rank()) + 1);
}

/// Keeps the restored random state where it fits this run. A state saved by another number of ranks
/// is not restored; one saved under another --parallel is equal on all ranks where it must differ,
/// or the reverse.
std::string Trainer::apply_random_rule(const cairn::CheckpointContext& context) {
  const bool equal = comm_.all_equal(random_state_hash());
  const bool fits = comm_.size() == 1 || equal == (options_.parallel == Parallel::tp);
  if (context.report.rng_restored && fits) return "restored";
  reseed(random_seed(context.global_step));
  return options_.parallel == Parallel::tp ? "reseeded from (seed, step)"
                                           : "reseeded from (seed, step, rank)";
}

/// Loads what the options say.
void Trainer::begin() {
  cairn::CheckpointContext context;
  if (options_.resume == "auto") {
    context = callback_->on_train_start();
  } else {
    if (options_.resume != "none") {
      manager_->set_source(cairn::LocalSource{options_.resume});
      context = manager_->load_checkpoint(*model_, *optimizer_, *scheduler_);
    }
    callback_->on_train_start(context);
  }
  if (context.path.empty()) {
    reseed(random_seed(0));
  } else {
    resumed(context);
  }
}

void Trainer::resumed(const cairn::CheckpointContext& context) {
  step_ = context.global_step;
  if (const auto loss = context.metrics.find("loss"); loss != context.metrics.end()) {
    loss_ = loss->second;
  }
  const std::string rule = apply_random_rule(context);
  const std::string params = params_digest();
  const std::string state = state_digest();
  print(
      "resumed step={} params_digest={} state_digest={} from {} (saved by {} ranks, now {}; random "
      "state {})",
      step_, params, state, context.path.string(), context.saved_world_size, comm_.size(), rule);
}

double Trainer::train_step(std::uint64_t step) {
  const bool whole_batch = options_.parallel == Parallel::tp;
  const cairn::Range share =
      whole_batch ? cairn::Range{0, options_.batch}
                  : cairn::balanced_range(options_.batch, comm_.size(), comm_.rank());
  const auto tokens = static_cast<double>(options_.batch * options_.context);
  for (at::Tensor& parameter : parameters_) parameter.mutable_grad().reset();
  double loss = 0.0;
  if (share.count != 0) {
    Text::Samples samples = text_.samples(options_.seed, step, share.start, share.count);
    const std::vector<std::int64_t> sizes{to_signed(share.count), to_signed(options_.context)};
    const at::Tensor inputs = at::from_blob(samples.inputs.data(), sizes, at::kLong);
    const at::Tensor targets = at::from_blob(samples.targets.data(), sizes, at::kLong);
    // Divided by the tokens of all ranks, so that the sum over ranks is the mean over the batch
    // however unevenly it is divided.
    const at::Tensor mean_share = model_->loss_sum(inputs, targets) / tokens;
    mean_share.backward();
    loss = mean_share.item<double>();
  }
  if (!whole_batch) {
    all_reduce_gradients(MPI_COMM_WORLD, parameters_);
    loss = all_reduce_sum(MPI_COMM_WORLD, loss);
  }
  update();
  return loss;
}

void Trainer::update() {
  const at::NoGradGuard no_grad;
  if (options_.parallel == Parallel::zero) {
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      if (!parameters_[i].grad().defined()) continue;  // frozen
      const auto range = cairn::balanced_range(static_cast<std::uint64_t>(parameters_[i].numel()),
                                               comm_.size(), comm_.rank());
      stepped_[i].tensor.mutable_grad() =
          parameters_[i].grad().view(-1).narrow(0, to_signed(range.start), to_signed(range.count));
    }
  }
  optimizer_->step();
  scheduler_->step();
  if (options_.parallel == Parallel::zero) all_gather_slices(MPI_COMM_WORLD, parameters_);
}

/// Called before each save.
void Trainer::add_progress(cairn::CheckpointInfo& info) {
  saving_.step = step_;
  info.epoch = step_ * options_.batch * options_.context / text_.size();
  info.metrics["loss"] = loss_;
}

void Trainer::finish_step(std::chrono::steady_clock::time_point begun) {
  std::this_thread::sleep_until(begun + std::chrono::milliseconds(options_.step_ms));
  if (options_.log_every != 0 && step_ % options_.log_every == 0) {
    print("step={} loss={:.6f}", step_, loss_);
  }
  const auto is_here = [&](const auto& place) {
    return place && place->step == step_ && place->rank == comm_.rank();
  };
  if (is_here(options_.signal_at)) std::raise(SIGTERM);
  callback_->on_step_end(step_);
  // The bytes of a save in the background are on their way now.
  if (options_.checkpoint.save.async && saving_.step == step_ && is_here(options_.die_at)) {
    std::raise(SIGKILL);
  }
}

std::string Trainer::params_digest() const {
  std::vector<cairn::TensorView> pieces;
  for (const auto& parameter : model_->named_parameters()) {
    pieces.push_back({parameter.key(), dtype_of(parameter.value()),
                      model_->placements().at(parameter.key()), bytes_of(parameter.value())});
  }
  return digest_of(comm_, std::move(pieces));
}

/// Over the optimizer's state by parameter name, and the learning rate that the scheduler has set.
std::string Trainer::state_digest() const {
  const double learning_rate = optimizer_->param_groups().at(0).options().get_lr();
  std::vector<cairn::TensorView> pieces{{"lr", cairn::DType::f64, cairn::Placement::replicated({}),
                                         reinterpret_cast<const std::byte*>(&learning_rate)}};
  std::vector<std::int64_t> steps(stepped_.size());
  const auto& all_states = optimizer_->state();
  for (std::size_t i = 0; i < stepped_.size(); ++i) {
    const auto& [name, tensor] = stepped_[i];
    const auto found = all_states.find(c10::guts::to_string(tensor.unsafeGetTensorImpl()));
    if (found == all_states.end()) continue;
    const auto& state = static_cast<const torch::optim::AdamWParamState&>(*found->second);
    steps[i] = state.step();
    pieces.push_back({name + "/step", cairn::DType::i64, cairn::Placement::replicated({}),
                      reinterpret_cast<const std::byte*>(&steps[i])});
    for (const auto& [slot, values] :
         {std::pair{"/exp_avg", state.exp_avg()}, std::pair{"/exp_avg_sq", state.exp_avg_sq()}}) {
      pieces.push_back({name + slot, dtype_of(values),
                        placement("optimizer/" + name + slot, values), bytes_of(values)});
    }
  }
  return digest_of(comm_, std::move(pieces));
}

int Trainer::run() {
  print(
      "train_lm: parallel={} ranks={} engine={} steps={} batch={} layers={} width={} heads={} "
      "context={} seed={} data={} ({} bytes) dir={} save_every={}",
      to_string(options_.parallel), comm_.size(), cairn::to_string(options_.checkpoint.save.engine),
      options_.steps, options_.batch, options_.layers, options_.width, options_.heads,
      options_.context, options_.seed, options_.data.string(), text_.size(),
      options_.checkpoint.save.dir.string(), options_.checkpoint.save.every_n_steps);
  begin();
  while (step_ < options_.steps && !callback_->should_stop()) {
    const auto begun = std::chrono::steady_clock::now();
    loss_ = train_step(step_ + 1);
    ++step_;
    finish_step(begun);
  }
  callback_->on_train_end();
  const std::string params = params_digest();
  manager_->close();
  if (step_ < options_.steps) {
    print("stopped step={} reason={} exit={} params_digest={}", step_,
          cairn::to_string(callback_->stop_cause()), callback_->exit_code(), params);
    return callback_->exit_code();
  }
  print("done step={} loss={:.6f} params_digest={}", step_, loss_, params);
  return 0;
}

}  // namespace

int train(const cairn::Comm& comm, const Options& options, const Text& text) {
  at::set_num_threads(1);  // the sums of a run must not depend on how many cores are free
  return Trainer(comm, options, text).run();
}

}  // namespace train_lm
