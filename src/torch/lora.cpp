#include "torch/lora.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <torch/nn/modules/linear.h>

#include <algorithm>
#include <cmath>
#include <ranges>
#include <set>
#include <utility>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "pipeline/config_document.hpp"
#include "torch/owners.hpp"
#include "torch/parameters.hpp"
#include "torch/tensor_memory.hpp"

namespace cairn {
namespace detail {
namespace {

using torch::nn::LinearImpl;

/// All linear layers with their paths, each once.
std::vector<std::pair<std::string, std::shared_ptr<LinearImpl>>> linears(
    const torch::nn::Module& model) {
  std::vector<std::pair<std::string, std::shared_ptr<LinearImpl>>> found;
  std::set<const LinearImpl*> seen;
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    auto linear = std::dynamic_pointer_cast<LinearImpl>(item.value());
    if (linear && seen.insert(linear.get()).second) found.emplace_back(item.key(), linear);
  }
  return found;
}

/// Uniform within 1 / sqrt(in), as torch::nn::Linear draws its weight (kaiming, a = sqrt(5)), from
/// a generator of its own: neither order nor division of the layers matters.
at::Tensor draw_a(const LoraLayer& layer, std::uint64_t seed) {
  Digester digester;
  digester.update(seed);
  digester.update(std::string_view(layer.path));
  at::Generator generator = at::detail::createCPUGenerator(digester.value());
  const std::int64_t in = layer.base.size(1);
  const double bound = in == 0 ? 0 : 1 / std::sqrt(static_cast<double>(in));
  at::Tensor a = at::empty({static_cast<std::int64_t>(layer.rank), in}, at::kFloat);
  a.uniform_(-bound, bound, generator);
  return a.to(layer.base.options().requires_grad(false));
}

/// A and B that the layer has already. Where they have another rank, check_rank tells it better.
void adopt(LoraLayer& layer, const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined() || !b.defined()) {
    fail(Errc::usage, "lora: '{}' has a parameter lora_{} but no lora_{}; give it both, or none",
         layer.path, a.defined() ? 'A' : 'B', a.defined() ? 'B' : 'A');
  }
  const std::int64_t rank = a.dim() == 0 ? 0 : a.size(0);
  if (a.sizes() != at::IntArrayRef{rank, layer.base.size(1)} ||
      b.sizes() != at::IntArrayRef{layer.base.size(0), rank}) {
    fail(Errc::usage,
         "lora: '{}' has a lora_A of shape {} and a lora_B of shape {}, which are no adapter of "
         "its weight of shape {}",
         layer.path, to_string(shape_of(a)), to_string(shape_of(b)),
         to_string(shape_of(layer.base)));
  }
  layer.a = a;
  layer.b = b;
}

void adopt_or_make(const torch::nn::Module& model, LoraLayer& layer, std::uint64_t seed) {
  const auto own = layer.linear->named_parameters(/*recurse=*/false);
  const at::Tensor* a = own.find("lora_A");
  const at::Tensor* b = own.find("lora_B");
  const bool adopted = a != nullptr || b != nullptr;
  const std::string tie = tie_of(model, layer.path, *layer.linear, adopted);
  if (!tie.empty()) {
    fail(Errc::unsupported, "lora: {}: an adapter would change both; choose other target_modules",
         tie);
  }
  layer.base = own_weight(*layer.linear);
  if (!layer.base.is_floating_point()) {
    fail(Errc::unsupported, "lora: the weight of '{}' is {}; adapters need floating-point weights",
         layer.path, c10::toString(layer.base.scalar_type()));
  }
  if (adopted) {
    adopt(layer, a == nullptr ? at::Tensor() : *a, b == nullptr ? at::Tensor() : *b);
    return;
  }
  const at::NoGradGuard no_grad;
  layer.fresh = true;
  layer.a = draw_a(layer, seed);
  layer.b = at::zeros({layer.base.size(0), static_cast<std::int64_t>(layer.rank)},
                      layer.base.options().requires_grad(false));
}

void check_rank(const LoraLayer& layer, std::uint64_t wanted) {
  const auto rank = static_cast<std::uint64_t>(layer.a.size(0));
  if (rank == wanted) return;
  fail(Errc::usage, "lora: '{}' has an adapter of rank {} already, not of rank {}", layer.path,
       rank, wanted);
}

at::Tensor sum(const LoraLayer& layer, const at::Tensor& a) {
  return at::add(layer.base, layer.b.matmul(a), layer.scale());
}

/// The layers as LibTorch knows them, for as long as the object lives.
class WithoutAdapters {
 public:
  explicit WithoutAdapters(const std::vector<LoraLayer>& layers) : layers_(layers) {
    for (const LoraLayer& layer : layers) {
      auto& parameters = (*layer.linear).*ParametersOf::kMember;
      parameters.erase("lora_A");
      parameters.erase("lora_B");
      layer.linear->weight = layer.base;
    }
  }
  ~WithoutAdapters() {
    for (const LoraLayer& layer : layers_) {
      auto& parameters = (*layer.linear).*ParametersOf::kMember;
      parameters.insert("lora_A", layer.a);
      parameters.insert("lora_B", layer.b);
      layer.linear->weight = sum(layer, layer.a);
    }
  }
  WithoutAdapters(const WithoutAdapters&) = delete;
  WithoutAdapters& operator=(const WithoutAdapters&) = delete;

 private:
  const std::vector<LoraLayer>& layers_;
};

/// The bases as they were before merge(): the last one first, should the program have tied two of
/// them since.
void put_back(std::vector<LoraLayer>& layers) {
  for (LoraLayer& layer : layers | std::views::reverse) {
    if (layer.kept.defined()) layer.base.copy_(layer.kept);
    layer.kept = at::Tensor();
  }
}

/// Module::clone() makes all parameters take gradients.
void keep_gradients(const torch::nn::Module& from, const torch::nn::Module& to) {
  const auto theirs = to.named_parameters();
  for (const auto& item : from.named_parameters()) {
    at::Tensor copy = theirs[item.key()];
    copy.requires_grad_(item.value().requires_grad());
  }
}

}  // namespace

std::vector<std::string> linear_paths(const torch::nn::Module& model) {
  std::vector<std::string> paths;
  for (const auto& item : linears(model)) paths.push_back(item.first);
  return paths;
}

std::vector<LoraLayer> make_adapters(const torch::nn::Module& model, const LoraModifier& settings,
                                     const PathPatterns& patterns, std::uint64_t seed,
                                     const LoraAdapters::State& known) {
  std::vector<LoraLayer> layers;
  for (const auto& [path, linear] : linears(model)) {
    if (!patterns.matches(path)) continue;
    const auto old = std::find_if(known.layers.begin(), known.layers.end(),
                                  [&](const LoraLayer& each) { return each.linear == linear; });
    if (old != known.layers.end()) {
      check_rank(*old, settings.rank);
      continue;
    }
    LoraLayer& layer = layers.emplace_back();
    layer.path = path;
    layer.linear = linear;
    layer.rank = settings.rank;
    layer.alpha = settings.alpha.value_or(static_cast<double>(settings.rank));
    layer.dropout = settings.dropout;
    adopt_or_make(model, layer, seed);
    check_rank(layer, settings.rank);
  }
  return layers;
}

void attach(LoraAdapters::State& state, const torch::nn::Module& model,
            const PathPatterns& patterns, std::vector<LoraLayer> layers) {
  for (const auto& item : model.named_parameters()) {
    const bool adapter = item.key().ends_with(".lora_A") || item.key().ends_with(".lora_B");
    if (!adapter && patterns.matches(item.key())) item.value().requires_grad_(false);
  }
  for (LoraLayer& layer : layers) {
    if (std::exchange(layer.fresh, false)) {
      // Where a cast came between making and attaching.
      const auto type = layer.base.scalar_type();
      for (const at::Tensor& tensor : {layer.a, layer.b}) {
        if (tensor.scalar_type() != type) tensor.set_data(tensor.to(type));
      }
      layer.linear->register_parameter("lora_A", layer.a);
      layer.linear->register_parameter("lora_B", layer.b);
    }
    state.layers.push_back(std::move(layer));
  }
}

at::Tensor merged_weight(const LoraLayer& layer) {
  const at::NoGradGuard no_grad;
  return sum(layer, layer.a);
}

std::string adapter_name(const std::string& path, char which) {
  return fmt::format("{}.lora_{}", path, which);
}

bool is_adapter(const LoraAdapters::State& state, const at::Tensor& tensor) {
  return std::any_of(state.layers.begin(), state.layers.end(), [&](const LoraLayer& layer) {
    return layer.a.is_same(tensor) || layer.b.is_same(tensor);
  });
}

Json adapters_document(const LoraAdapters::State& state) {
  Json document = Json::object();
  for (const LoraLayer& layer : state.layers) {
    document[layer.path] = {
        {"rank", layer.rank}, {"alpha", layer.alpha}, {"dropout", layer.dropout}};
  }
  return document;
}

}  // namespace detail

using namespace detail;

LoraAdapters::LoraAdapters() : state_(std::make_shared<State>()) {}

void LoraAdapters::attach(torch::nn::Module& model, const LoraModifier& settings,
                          std::uint64_t seed) {
  Config config;
  config.modifiers = {settings};
  check(config, "the settings of an adapter");
  const PathPatterns patterns(settings.target_modules);
  const auto paths = linear_paths(model);
  require_hits(patterns, patterns.hits(paths), "lora", "linear layer at or under", paths);
  detail::attach(*state_, model, patterns, make_adapters(model, settings, patterns, seed, *state_));
  apply();
}

std::vector<std::string> LoraAdapters::layers() const {
  std::vector<std::string> paths;
  for (const LoraLayer& layer : state_->layers) paths.push_back(layer.path);
  return paths;
}

std::vector<at::Tensor> LoraAdapters::parameters() const {
  std::vector<at::Tensor> all;
  for (const LoraLayer& layer : state_->layers) {
    all.push_back(layer.a);
    all.push_back(layer.b);
  }
  return all;
}

void LoraAdapters::apply() {
  if (state_->merged) return;
  // Layers that only the adapters keep alive belong to a model that is gone.
  std::erase_if(state_->layers,
                [](const LoraLayer& layer) { return layer.linear.use_count() == 1; });
  for (const LoraLayer& layer : state_->layers) {
    at::Tensor a = layer.a;
    if (layer.dropout > 0 && layer.linear->is_training()) {
      const at::Tensor ones = at::ones({a.size(1)}, a.options().requires_grad(false));
      a = a * at::dropout(ones, layer.dropout, /*train=*/true);
    }
    layer.linear->weight = sum(layer, a);
  }
}

void LoraAdapters::merge() {
  if (state_->merged) return;
  const at::NoGradGuard no_grad;
  auto& layers = state_->layers;
  try {
    for (LoraLayer& layer : layers) layer.kept = layer.base.detach().clone();
    for (LoraLayer& layer : layers) layer.base.copy_(merged_weight(layer));
  } catch (...) {
    put_back(layers);
    throw;
  }
  for (LoraLayer& layer : layers) layer.linear->weight = layer.base;
  state_->merged = true;
}

void LoraAdapters::unmerge() {
  if (!state_->merged) return;
  {
    const at::NoGradGuard no_grad;
    put_back(state_->layers);
  }
  state_->merged = false;
  apply();
}

std::pair<std::shared_ptr<torch::nn::Module>, LoraAdapters> LoraAdapters::clone(
    torch::nn::Module& model) const {
  if (state_->merged) fail(Errc::usage, "the adapters are merged; call unmerge() before clone()");
  std::shared_ptr<torch::nn::Module> copy;
  {
    const WithoutAdapters bare(state_->layers);
    copy = model.clone();
  }
  LoraAdapters copied;
  const at::NoGradGuard no_grad;
  for (const auto& [path, linear] : linears(*copy)) {
    const auto same = [&, at = std::string_view(path)](const LoraLayer& l) { return l.path == at; };
    const auto from = std::find_if(state_->layers.begin(), state_->layers.end(), same);
    if (from == state_->layers.end()) continue;
    LoraLayer layer = *from;
    layer.linear = linear;
    layer.base = linear->named_parameters(/*recurse=*/false)["weight"];
    layer.a = from->a.detach().clone();
    layer.b = from->b.detach().clone();
    linear->register_parameter("lora_A", layer.a, from->a.requires_grad());
    linear->register_parameter("lora_B", layer.b, from->b.requires_grad());
    copied.state_->layers.push_back(std::move(layer));
  }
  keep_gradients(model, *copy);
  const at::AutoGradMode with_gradients(true);
  copied.apply();
  return {std::move(copy), std::move(copied)};
}

bool LoraAdapters::merged() const { return state_->merged; }

}  // namespace cairn
