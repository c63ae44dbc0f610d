#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cairn/manifest.hpp"
#include "values.hpp"

namespace cairn::tool {

/// Two tensors of one name. They point into the manifests.
struct Pair {
  const TensorEntry* a = nullptr;
  const TensorEntry* b = nullptr;
  bool same_digest = false;          ///< equal by digest: the values need no look
  std::optional<Difference> values;  ///< nothing where the shapes differ

  bool differs() const {
    return a->dtype != b->dtype || a->shape != b->shape || (values && values->differing != 0);
  }
};

/// What two checkpoints do not have in common; names sorted.
struct DiffReport {
  std::vector<std::string> only_in_a;
  std::vector<std::string> only_in_b;
  std::vector<Pair> pairs;             ///< of every name in both
  std::vector<std::string> documents;  ///< that differ, or are in one only
  std::vector<std::string>
      origin_documents;  ///< the same of those that tell how a file was written
};

/// Names, shapes, dtypes, digests and documents, without values. The manifests must outlive the
/// report. Local.
DiffReport compare_tables(const Manifest& a, const Manifest& b);
/// Whether the checkpoints hold the same state.
bool is_equal(const DiffReport& report);

std::string text_of(const DiffReport& report, const Manifest& a, const Manifest& b);
std::string json_text_of(const DiffReport& report, const Manifest& a, const Manifest& b);

}  // namespace cairn::tool
