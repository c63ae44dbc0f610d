// Modifiers in two halves: everything is checked, on all ranks, before a load changes anything;
// what is left to do then can't fail. Later modifiers see what earlier ones will have made.
#include "torch/modify.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <torch/nn/module.h>

#include <optional>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/throw.hpp"
#include "pipeline/path_patterns.hpp"
#include "torch/agree.hpp"
#include "torch/custom.hpp"
#include "torch/lora.hpp"
#include "torch/random.hpp"
#include "torch/reset.hpp"
#include "torch/share.hpp"
#include "torch/text.hpp"

namespace cairn::detail {
namespace {

/// A modifier's paths, to be found on any rank.
struct Demand {
  std::string user;
  PathPatterns patterns;
  std::string_view what;
  std::vector<std::string> paths;
};

std::string elements_text(std::size_t tensors, std::int64_t elements, std::string_view what) {
  return fmt::format("{} tensors of {} elements {}", tensors, elements, what);
}

/// Parameters, and also buffers where asked, under the patterns.
template <class F>
void for_each_under(const torch::nn::Module& model, const PathPatterns& patterns, bool buffers,
                    F&& visit) {
  const auto visit_some = [&](const auto& items) {
    for (const auto& item : items) {
      if (item.value().defined() && (patterns.size() == 0 || patterns.matches(item.key()))) {
        visit(item.key(), item.value());
      }
    }
  };
  visit_some(model.named_parameters());
  if (buffers) visit_some(model.named_buffers());
}

ModifierReport freeze(const torch::nn::Module& model, const PathPatterns& patterns) {
  ModifierReport report{"freeze", {}, {}};
  std::int64_t elements = 0;
  for_each_under(model, patterns, false, [&](const std::string& name, const at::Tensor& tensor) {
    tensor.requires_grad_(false);
    report.names.push_back(name);
    elements += tensor.numel();
  });
  report.text = elements_text(report.names.size(), elements, "take no gradients");
  return report;
}

/// Memory for tensors of another type, by the tensors that will get it: found before a load changes
/// anything.
using CastMemory = std::unordered_map<const at::TensorImpl*, at::Tensor>;

ModifierReport cast(const torch::nn::Module& model, const PathPatterns& patterns,
                    at::ScalarType type, CastMemory& memory) {
  ModifierReport report{"cast", {}, {}};
  std::int64_t elements = 0;
  const at::NoGradGuard no_grad;
  for_each_under(model, patterns, true, [&](const std::string& name, const at::Tensor& tensor) {
    if (!tensor.is_floating_point() || tensor.scalar_type() == type) return;
    const auto found = memory.find(tensor.unsafeGetTensorImpl());
    const bool fits = found != memory.end() && found->second.sizes() == tensor.sizes() &&
                      found->second.device() == tensor.device();
    tensor.set_data(fits ? found->second.copy_(tensor.detach()) : tensor.detach().to(type));
    tensor.mutable_grad() = at::Tensor();
    report.names.push_back(name);
    elements += tensor.numel();
  });
  memory.clear();
  report.text =
      elements_text(report.names.size(), elements, fmt::format("are {} now", c10::toString(type)));
  return report;
}

at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return at::kDouble;
    case DType::f32:
      return at::kFloat;
    case DType::f16:
      return at::kHalf;
    case DType::bf16:
      return at::kBFloat16;
    default:
      fail(Errc::usage, "cast: {} is no floating-point type to cast a model to", to_string(dtype));
  }
}

class Preparer {
 public:
  Preparer(torch::nn::Module& model, ModifierChoice choice, const LoraAdapters& adapters,
           std::uint64_t seed)
      : model_(model), choice_(choice), adapters_(adapters), seed_(seed), known_(adapters.state()) {
    for (const auto& item : model.named_parameters()) names_.push_back(item.key());
    for (const auto& item : model.named_buffers()) names_.push_back(item.key());
    for (const LoraLayer& layer : adapters.state().layers) {
      prepared_.scales[layer.path] = layer.scale();
    }
  }

  void operator()(const FreezeModifier& modifier) {
    PathPatterns patterns(modifier.layers);
    demand("freeze", patterns, "module or parameter", names_);
    add([&model = model_, patterns] { return freeze(model, patterns); });
  }

  void operator()(const CastModifier& modifier) {
    PathPatterns patterns(modifier.layers);
    demand("cast", patterns, "module or parameter", names_);
    const at::ScalarType type = scalar_type(modifier.dtype);
    add([&model = model_, patterns, type, memory = memory_for_cast(patterns, type)]() mutable {
      return cast(model, patterns, type, memory);
    });
  }

  void operator()(const LoraModifier& modifier) {
    PathPatterns patterns(modifier.target_modules);
    demand("lora", patterns, "linear layer at or under", linear_paths(model_));
    auto layers = make_adapters(model_, modifier, patterns, seed_, known_);
    ModifierReport report{"lora", {}, {}};
    std::int64_t elements = 0;
    for (const LoraLayer& layer : layers) {
      for (const auto& [which, tensor] : {std::pair('A', layer.a), std::pair('B', layer.b)}) {
        const std::string name = adapter_name(layer.path, which);
        if (layer.fresh) {
          prepared_.adapters.push_back({{name}, tensor, true});
          names_.push_back(name);
        }
        elements += tensor.numel();
      }
      prepared_.scales[layer.path] = layer.scale();
      report.names.push_back(layer.path);
    }
    known_.layers.insert(known_.layers.end(), layers.begin(), layers.end());
    report.text = fmt::format("{} linear layers have new adapters, of {} elements",
                              report.names.size(), elements);
    add([&model = model_, patterns, layers, report, state = adapters_] {
      attach(state.state(), model, patterns, layers);
      return report;
    });
  }

  void operator()(const ResetModifier& modifier) {
    if (choice_ != ModifierChoice::all) return;
    PathPatterns patterns(modifier.layers);
    demand("reset", patterns, "module", names_);
    check_reset(model_, patterns);
    add([&model = model_, patterns, seed = seed_] { return reset(model, patterns, seed); });
  }

  void operator()(const CustomModifier& modifier) {
    if (choice_ != ModifierChoice::all) return;
    add(prepare_custom(modifier, model_));
  }

  Modification take() { return std::move(prepared_); }
  const std::vector<Demand>& demands() const { return demands_; }

 private:
  /// Of all that has another type by the time of the cast; adapters are small and wait.
  CastMemory memory_for_cast(const PathPatterns& patterns, at::ScalarType type) {
    CastMemory memory;
    for_each_under(model_, patterns, true, [&](const std::string&, const at::Tensor& tensor) {
      if (!tensor.is_floating_point()) return;
      auto& planned =
          types_.try_emplace(tensor.unsafeGetTensorImpl(), tensor.scalar_type()).first->second;
      if (std::exchange(planned, type) == type) return;
      memory.try_emplace(tensor.unsafeGetTensorImpl(),
                         at::empty_like(tensor, tensor.options().dtype(type).requires_grad(false)));
    });
    return memory;
  }

  void add(ModifierWork work) { prepared_.work.push_back(std::move(work)); }
  void demand(std::string user, PathPatterns patterns, std::string_view what,
              std::vector<std::string> paths) {
    demands_.push_back({std::move(user), std::move(patterns), what, std::move(paths)});
  }

  torch::nn::Module& model_;
  ModifierChoice choice_;
  const LoraAdapters& adapters_;
  std::uint64_t seed_;
  LoraAdapters::State known_;  ///< with the adapters of earlier modifiers
  std::vector<std::string> names_;
  std::unordered_map<const at::TensorImpl*, at::ScalarType> types_;  ///< after earlier casts
  std::vector<Demand> demands_;
  Modification prepared_;
};

}  // namespace

Modification prepare_modifiers(const Comm& comm, torch::nn::Module& model,
                               const std::vector<Modifier>& modifiers, ModifierChoice choice,
                               const LoraAdapters& adapters) {
  std::uint64_t seed[1] = {comm.is_root() ? initial_seed() : 0};
  comm.all_reduce_max(std::span<std::uint64_t>(seed));
  std::optional<Preparer> preparer;
  std::vector<std::uint64_t> hits;
  agree_torch(comm, "modifiers", [&] {
    if (adapters.merged()) {
      fail(Errc::usage, "the model's adapters are merged into its weights; call unmerge() first");
    }
    preparer.emplace(model, choice, adapters, seed[0]);
    for (const Modifier& modifier : modifiers) std::visit(*preparer, modifier);
    for (const Demand& demand : preparer->demands()) {
      const auto some = demand.patterns.hits(demand.paths);
      hits.insert(hits.end(), some.begin(), some.end());
    }
  });
  comm.all_reduce_max(std::span<std::uint64_t>(hits));
  agree(comm, "modifiers", [&] {
    auto from = hits.begin();
    for (const Demand& demand : preparer->demands()) {
      const auto end = from + static_cast<std::ptrdiff_t>(demand.patterns.size());
      require_hits(demand.patterns, {from, end}, demand.user, demand.what, demand.paths);
      from = end;
    }
  });
  return preparer->take();
}

std::vector<ModifierReport> carry_out(const Modification& modification) {
  std::vector<ModifierReport> reports;
  for (const ModifierWork& work : modification.work) reports.push_back(work());
  return reports;
}

std::vector<ModifierReport> unite_reports(const Comm& comm,
                                          const std::vector<ModifierReport>& mine) {
  std::string text;
  agree(comm, "modifiers: report", [&] {
    Json json = Json::array();
    for (const ModifierReport& report : mine) {
      json.push_back({report.type, report.names, report.text});
    }
    text = to_text(json);
  });
  const auto texts = share_texts(comm, "modifiers: report", text);
  std::vector<ModifierReport> united = mine;
  agree(comm, "modifiers: report", [&] {
    for (ModifierReport& report : united) report.names.clear();
    std::vector<std::unordered_set<std::string>> known(mine.size());
    for (const std::string& each : texts) {
      const Json json = Json::parse(each);
      for (std::size_t m = 0; m < united.size(); ++m) {
        if (&each == &texts.front()) united[m].text = json.at(m).at(2).get<std::string>();
        for (const Json& name : json.at(m).at(1)) {
          auto text_of_name = name.get<std::string>();
          if (known[m].insert(text_of_name).second) {
            united[m].names.push_back(std::move(text_of_name));
          }
        }
      }
    }
  });
  return united;
}

}  // namespace cairn::detail
