#include "payload.hpp"

#include <algorithm>
#include <cstring>

#include "base/throw.hpp"
#include "plan/region.hpp"

namespace cairn::bench {
namespace {

constexpr std::uint64_t kSplitFrom = 1 << 20;  // bytes

struct Spec {
  std::string name;
  Shape shape;
};

/// A cheap hash (one round of a 64-bit finaliser), in [-0.5, 0.5).
float value_at(std::uint64_t tensor, std::uint64_t element) {
  std::uint64_t x = (tensor << 40) + element + 1;
  x *= 0x9e3779b97f4a7c15ULL;
  x ^= x >> 29;
  x *= 0xbf58476d1ce4e5b9ULL;
  return static_cast<float>(x >> 40) * 0x1p-24F - 0.5F;
}

void add_uniform(std::vector<Spec>& specs, const std::string& stem, std::uint64_t count,
                 const Shape& shape) {
  for (std::uint64_t i = 0; i < count; ++i)
    specs.push_back({fmt::format("model/{}.{:05}", stem, i), shape});
}

/// The parameters of GPT-2 (small), under their usual names.
std::vector<Spec> gpt2_parameters(bool quick) {
  const int layers = quick ? 3 : 12;
  const std::uint64_t width = quick ? 192 : 768;
  const std::uint64_t vocabulary = quick ? 5025 : 50257;
  const std::uint64_t context = quick ? 256 : 1024;
  std::vector<Spec> specs{{"transformer.wte.weight", {vocabulary, width}},
                          {"transformer.wpe.weight", {context, width}}};
  const auto add_norm = [&](const std::string& name) {
    specs.push_back({name + ".weight", {width}});
    specs.push_back({name + ".bias", {width}});
  };
  const auto add_linear = [&](const std::string& name, std::uint64_t in, std::uint64_t out) {
    specs.push_back({name + ".weight", {in, out}});
    specs.push_back({name + ".bias", {out}});
  };
  for (int layer = 0; layer < layers; ++layer) {
    const std::string block = fmt::format("transformer.h.{}.", layer);
    add_norm(block + "ln_1");
    add_linear(block + "attn.c_attn", width, 3 * width);
    add_linear(block + "attn.c_proj", width, width);
    add_norm(block + "ln_2");
    add_linear(block + "mlp.c_fc", width, 4 * width);
    add_linear(block + "mlp.c_proj", 4 * width, width);
  }
  add_norm("transformer.ln_f");
  return specs;
}

std::vector<Spec> specs_of(std::string_view kind, bool quick,
                           std::optional<std::uint64_t> tensors) {
  if (tensors && kind != "many") {
    detail::fail(Errc::usage, "only the payload many takes a number of tensors");
  }
  std::vector<Spec> specs;
  if (kind == "large") {
    add_uniform(specs, "large", quick ? 5 : 100, {2048, 2048});
    add_uniform(specs, "small", quick ? 15 : 300, {1024});
  } else if (kind == "many") {
    add_uniform(specs, "small", tensors.value_or(quick ? 1000 : 20000), {1024});
  } else if (kind == "mixed") {
    const std::vector<Spec> parameters = gpt2_parameters(quick);
    for (const Spec& parameter : parameters) {
      specs.push_back({"model/" + parameter.name, parameter.shape});
    }
    for (const Spec& parameter : parameters) {
      const std::string state = "optimizer/" + parameter.name;
      specs.push_back({state + "/exp_avg", parameter.shape});
      specs.push_back({state + "/exp_avg_sq", parameter.shape});
      specs.push_back({state + "/step", {}});
    }
  } else {
    detail::fail(Errc::usage, "unknown payload '{}'; choose large, many or mixed", kind);
  }
  return specs;
}

/// Calls `run(first, position, count)` for the runs of a piece: `count` elements from `first` of
/// the flattened tensor on are at `position` of its own.
void for_each_run(const Placement& placement,
                  const std::function<void(std::uint64_t, std::uint64_t, std::uint64_t)>& run) {
  if (placement.elements() == 0) return;
  const Shape& shape = placement.global_shape;
  const auto whole = detail::dense_region(shape, false, Box::whole(shape), 0, 1);
  detail::for_each_run(placement.box, whole, detail::region_of(placement, 1), 1, run);
}

}  // namespace

Payload::Payload(std::string_view kind, bool quick, std::optional<std::uint64_t> tensors,
                 const Division& division)
    : kind_(kind) {
  for (const Spec& spec : specs_of(kind, quick, tensors)) add(spec.name, spec.shape, division);
}

void Payload::add(const std::string& name, Shape shape, const Division& division) {
  const std::uint64_t tensor = tensors_++;
  const bool split = !division.replicated && element_count(shape) * sizeof(float) >= kSplitFrom;
  const auto owner = static_cast<int>(tensor % static_cast<std::uint64_t>(division.ranks));
  if (!split && !division.replicated && owner != division.rank) return;
  Piece piece;
  piece.name = name;
  piece.tensor = tensor;
  const std::size_t dim = division.columns ? shape.size() - 1 : 0;
  piece.placement = split ? Placement::split(std::move(shape), dim, division.ranks, division.rank)
                          : Placement::replicated(std::move(shape));
  const std::uint64_t elements = piece.placement.elements();
  piece.values = std::make_unique<float[]>(elements);
  for_each_run(piece.placement, [&](std::uint64_t first, std::uint64_t at, std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) piece.values[at + i] = value_at(tensor, first + i);
  });
  my_bytes_ += elements * sizeof(float);
  pieces_.push_back(std::move(piece));
}

StateView Payload::state() const {
  StateView state;
  for (const Piece& piece : pieces_) {
    state.tensors.push_back({piece.name, DType::f32, piece.placement,
                             reinterpret_cast<const std::byte*>(piece.values.get())});
  }
  state.documents["context"] = fmt::format(R"({{"epoch": 0, "payload": "{}"}})", kind_);
  state.step = 1;
  return state;
}

std::vector<MutableTensorView> Payload::targets() const {
  std::vector<MutableTensorView> targets;
  for (const Piece& piece : pieces_) {
    targets.push_back({piece.name, DType::f32, piece.placement,
                       reinterpret_cast<std::byte*>(piece.values.get())});
  }
  return targets;
}

void Payload::change(double share) {
  constexpr std::uint64_t kParts = 100;
  for (Piece& piece : pieces_) {
    const bool changes = static_cast<double>(piece.tensor * 61 % kParts) < share * kParts;
    if (changes && piece.placement.elements() != 0) piece.values[0] += 1;
  }
}

void Payload::clear() {
  for (const Piece& piece : pieces_) {
    std::memset(piece.values.get(), 0, piece.placement.elements() * sizeof(float));
  }
}

bool Payload::is_intact() const {
  return std::all_of(pieces_.begin(), pieces_.end(), [](const Piece& piece) {
    bool intact = true;
    for_each_run(piece.placement, [&](std::uint64_t first, std::uint64_t at, std::uint64_t count) {
      for (std::uint64_t i = 0; i < count; ++i) {
        intact = intact && piece.values[at + i] == value_at(piece.tensor, first + i);
      }
    });
    return intact;
  });
}

}  // namespace cairn::bench
