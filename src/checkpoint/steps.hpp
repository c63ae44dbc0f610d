#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cairn/checkpoint.hpp"
#include "cairn/comm.hpp"
#include "formats/hdf5/layout.hpp"
#include "transfer/engine.hpp"

namespace cairn::detail {

/// The steps of a save (docs/design.md, "Saving"), one file each. What one step makes, the next
/// takes.

/// What the layout step finds out once per structure and later saves reuse.
struct SaveLayout {
  std::uint64_t key = 0;  ///< hash of what this rank contributes; another key needs another layout
  std::uint64_t structure = 0;
  std::map<std::string, Placement> blobs;  ///< where this rank's blobs lie
  ContainerLayout container;               ///< documents' rooms only on rank 0
  Template metadata;                       ///< rank 0 only
  /// This rank's extents in the order of the file, each with the position of its piece among the
  /// rank's tensors (blobs follow the tensors, in the order of their names).
  std::vector<std::pair<WriteItem, std::size_t>> items;
};

/// The same on all ranks, or decided by rank 0.
struct SaveRequest {
  std::filesystem::path target;
  std::filesystem::path partial;  ///< where the bytes are until the checkpoint is published
  const StateView& state;
  const SaveOptions& options;
};

/// Step 1. Whether every rank can use `layout` (null: none yet). Collective.
/// Errors: usage; mismatch when ranks disagree on path, step, options or blob names.
bool agree_on_request(const Comm& comm, const SaveRequest& request, const SaveLayout* layout);
/// Hash of what this rank contributes: pieces, blob names and sizes.
std::uint64_t layout_key(const StateView& state);

/// Step 2. Collective. Errors: usage, mismatch, io.
SaveLayout make_layout(const Comm& comm, const SaveRequest& request,
                       const std::map<std::string, std::string>& documents);

/// Step 3. Rank 0 makes directory and partial file and reserves the space. Collective. Errors: io.
void preflight(const Comm& comm, const SaveRequest& request, const SaveLayout& layout, bool stamp);

/// Steps 5 and 6. Makes the data durable, gives rank 0 all digests, and lets it write metadata,
/// index, documents, commit record and, last of all, the signature. Collective. Errors: io,
/// timeout.
void commit(const Comm& comm, const SaveRequest& request, SaveLayout& layout,
            const std::map<std::string, std::string>& documents,
            const std::vector<std::uint64_t>& digests);

/// Step 7. Rank 0 renames the file, syncs the directory and moves the `last` link. Collective.
void publish(const Comm& comm, const SaveRequest& request);

}  // namespace cairn::detail
