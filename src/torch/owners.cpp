#include "torch/owners.hpp"

#include <fmt/format.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>

#include <initializer_list>

namespace cairn::detail {
namespace {

using torch::nn::Module;

/// The same element first: a view of a flat buffer shares its storage with the other views, but not
/// its beginning.
bool same_memory(const at::Tensor& a, const at::Tensor& b) {
  if (a.is_same(b)) return true;
  return a.has_storage() && b.has_storage() && a.numel() > 0 && b.numel() > 0 &&
         a.storage().unsafeGetStorageImpl() == b.storage().unsafeGetStorageImpl() &&
         a.storage_offset() == b.storage_offset();
}

template <class T>
at::Tensor member_of(const Module& module) {
  const auto* typed = dynamic_cast<const T*>(&module);
  return typed == nullptr ? at::Tensor() : typed->weight;
}

/// The members that forward() uses, of the modules whose weights are tied in practice.
at::Tensor weight_member(const Module& module) {
  using namespace torch::nn;
  for (const at::Tensor& weight : {member_of<LinearImpl>(module), member_of<EmbeddingImpl>(module),
                                   member_of<EmbeddingBagImpl>(module)}) {
    if (weight.defined()) return weight;
  }
  return {};
}

std::string joined(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

/// The name under which another module than `self` has `weight`; empty: none has.
std::string other_owner(const Module& model, const Module& self, const at::Tensor& weight) {
  const auto name_in = [&](const std::string& path, const Module& module) -> std::string {
    if (&module == &self) return {};
    for (const auto& item : module.named_parameters(/*recurse=*/false)) {
      if (item.value().defined() && same_memory(item.value(), weight)) {
        return joined(path, item.key());
      }
    }
    const at::Tensor member = weight_member(module);
    return member.defined() && same_memory(member, weight) ? joined(path, "weight") : std::string();
  };
  if (std::string found = name_in({}, model); !found.empty()) return found;
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    if (std::string found = name_in(item.key(), *item.value()); !found.empty()) return found;
  }
  return {};
}

}  // namespace

at::Tensor own_weight(const torch::nn::LinearImpl& linear) {
  const auto parameters = linear.named_parameters(/*recurse=*/false);
  const at::Tensor* own = parameters.find("weight");
  return own == nullptr ? at::Tensor() : *own;
}

std::string tie_of(const Module& model, const std::string& path,
                   const torch::nn::LinearImpl& linear, bool has_adapter) {
  const at::Tensor own = own_weight(linear);
  if (!has_adapter && (!own.defined() || !same_memory(linear.weight, own))) {
    const std::string other =
        linear.weight.defined() ? other_owner(model, linear, linear.weight) : std::string();
    return fmt::format("'{}' does not compute with its own parameter '{}', but with {}", path,
                       joined(path, "weight"),
                       other.empty() ? "another tensor" : fmt::format("'{}'", other));
  }
  const std::string other = other_owner(model, linear, own);
  if (other.empty()) return {};
  return fmt::format("'{}' and '{}' are one tensor", joined(path, "weight"), other);
}

}  // namespace cairn::detail
