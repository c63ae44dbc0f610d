#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>

#include "checkpoint/steps.hpp"

namespace cairn::detail {

/// Between steps 2 and 3 of saves with SaveOptions::delta: finds out what has not changed since the
/// last checkpoint, and keeps the last layout that refers to such tensors.
class DeltaStep {
 public:
  /// The layout to save by: `full`, or one without the tensors that an older file holds already.
  /// `items` are this rank's bytes of `full`, which it looks at once where the last checkpoint has
  /// a tensor of that name, dtype and shape. Collective. Errors: those of lay_out.
  std::shared_ptr<SaveLayout> choose(const Comm& comm, const SaveRequest& request,
                                     const std::shared_ptr<SaveLayout>& full,
                                     std::span<const WriteItem> items);

 private:
  struct Base;
  struct Choice;
  /// The newest checkpoint that is known, which need not be committed; on rank 0.
  std::optional<Base> find_base(const SaveRequest& request) const;

  std::filesystem::path last_;          // target of the last save; on rank 0
  std::shared_ptr<SaveLayout> full_;    // what the next two were made for
  std::shared_ptr<SaveLayout> layout_;  // the last one that refers to files
  std::uint64_t key_ = 0;               // of what it refers to; on rank 0
};

}  // namespace cairn::detail
