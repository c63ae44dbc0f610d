#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/config.hpp"
#include "cairn/manifest.hpp"

namespace cairn::detail {

/// What the tensors of a checkpoint are called once the rename rules were applied. Rules act on the
/// dotted names of parameters and buffers: the part of a tensor's name behind "model/", or between
/// "optimizer/" and the slot. Lifetime: that of the manifest. All members are Local.
class CAIRN_EXPORT CheckpointNames {
 public:
  /// `wrapper`: a prefix of the model's names that is taken away first; tensors of the model
  /// without it belong to the wrapper, not to the model. Errors: mismatch, when two tensors get the
  /// same name; usage, when an expression is none.
  CheckpointNames(const Manifest& manifest, const std::vector<RenameRule>& rules,
                  std::string wrapper = {});
  CheckpointNames(const CheckpointNames&) = delete;
  CheckpointNames& operator=(const CheckpointNames&) = delete;

  /// The position of the tensor that is called so now.
  std::optional<std::size_t> find(std::string_view name) const { return by_name_->find(name); }
  bool contains(std::string_view name) const { return by_name_->contains(name); }
  /// What the tensor at that position is called now.
  std::string_view name(std::size_t position) const;
  /// Whether the tensor at that position is the wrapper's own.
  bool is_beside(std::size_t position) const;
  const std::string& wrapper() const { return wrapper_; }
  /// A dotted name as wrapper and rules leave it.
  std::string renamed(const std::string& dotted) const;
  /// The rules that changed no name.
  std::vector<std::string> idle_rules() const;

 private:
  struct Rule;
  const Manifest& manifest_;
  std::string wrapper_;
  std::shared_ptr<const std::vector<Rule>> rules_;
  std::vector<std::string> names_;  ///< by position; empty where nothing changes them
  std::vector<bool> rule_used_;
  std::optional<TensorNames> by_name_;
};

}  // namespace cairn::detail
