#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cairn/checkpoint.hpp"
#include "cairn/comm.hpp"
#include "formats/hdf5/layout.hpp"
#include "plan/replicas.hpp"
#include "transfer/engine.hpp"

namespace cairn::detail {

/// The steps of a save (docs/design.md, "Saving"), one file each. What one step makes, the next
/// takes.

/// An extent that this rank writes, and which of its bytes fill it.
struct LayoutItem {
  std::size_t tensor = 0;  ///< position in the table
  Extent extent;
  std::size_t piece = 0;   ///< among the rank's tensors; blobs follow them, in order of their names
  std::uint64_t skip = 0;  ///< bytes of the piece before the extent's
};

/// An extent of the table. Lifetime: that of the table, which must not move.
struct WrittenExtent {
  TensorEntry* tensor = nullptr;
  Extent* extent = nullptr;
};

/// What the layout step finds out once per structure and later saves reuse.
struct SaveLayout {
  /// What this rank contributes, without its bytes: its tensors, and behind them the blobs.
  /// Anything else needs another layout.
  std::vector<TensorView> contributed;
  std::map<std::string, std::uint64_t> blob_bytes;
  std::vector<LayoutItem> items;  ///< this rank's, in the order of the file
  PieceKeys keys;                 ///< of these
  std::vector<bool> replicated;   ///< by piece, blobs included
  Words kept;                     ///< the keys that this rank keeps, by the rank that asked
  /// On rank 0 all of it; elsewhere the tensors without extents, and hdf5_bytes.
  ContainerLayout container;
  // Rank 0 only.
  std::vector<std::vector<std::byte>> reports;  ///< by rank; for other layouts of the structure
  std::uint64_t structure = 0;
  int writers = 0;  ///< ranks that count as having written it
  Template metadata;
  std::vector<std::vector<WrittenExtent>> written;  ///< by writer, as in its items
};

/// The same on all ranks, or decided by rank 0.
struct SaveRequest {
  std::filesystem::path target;
  std::filesystem::path partial;  ///< where the bytes are until the checkpoint is published
  const StateView& state;
  const SaveOptions& options;
  bool bytes_elsewhere = false;  ///< the tensors have no data: the writer knows where it is
  bool in_background = false;    ///< on a thread that must not call HDF5
};

/// What the ranks agreed on.
struct SaveStart {
  std::map<std::string, std::string> documents;  ///< the state's and cairn's own; rank 0's count
  bool layout_fits = false;                      ///< every rank can use the last layout
  std::uint64_t nonce = 0;                       ///< rank 0's, by which all know its partial file
};

/// Step 1. `layout` is the last one, or null. Collective.
/// Errors: usage; mismatch when ranks disagree on path, step, options or blob names.
SaveStart agree_on_request(const Comm& comm, const SaveRequest& request, const SaveLayout* layout);

/// What a layout is made of, on rank 0.
struct LayoutPlan {
  std::vector<TensorEntry> tensors;   ///< with extents, without offsets of those in file 0
  std::vector<ReferencedFile> files;  ///< that extents name by number, from 1
  std::map<std::string, std::uint64_t> rooms;
  /// The rank that writes an extent of file 0. Called for all in the order of the table.
  std::function<int(const TensorEntry&, const Extent&)> writer =
      [](const TensorEntry&, const Extent& extent) { return extent.writer; };
};
/// Local. Errors: usage, when they are too many.
std::map<std::string, std::uint64_t> rooms_for(const std::map<std::string, std::string>& documents);
/// Rank 0's plan for all pieces of all ranks whose tensors `takes` wants, after their `reports`.
/// Local.
std::vector<TensorEntry> plan_tensors(const std::vector<std::vector<std::byte>>& reports,
                                      const SaveOptions& options,
                                      const std::function<bool(const std::string&)>& takes);
/// Builds the file's skeleton after rank 0's plan and tells every rank what it writes; `pieces` are
/// what this rank has the bytes of. Collective. Errors: usage, io.
void lay_out(const Comm& comm, const SaveRequest& request, LayoutPlan plan,
             std::span<const TensorView> pieces, SaveLayout& layout);

/// Step 2. Collective. Errors: usage, mismatch, io.
SaveLayout make_layout(const Comm& comm, const SaveRequest& request,
                       const std::map<std::string, std::string>& documents);

/// Between steps 2 and 3, where SaveOptions::replica_check wants it. Collective. Errors: mismatch,
/// naming tensor and ranks.
void check_replicas(const Comm& comm, const SaveRequest& request, const SaveLayout& layout);

/// Step 3, on rank 0: makes directory and partial file, reserves the space, and writes the nonce
/// where the trailer will be. `stamp`: makes it a valid HDF5 file already. Local. Errors: io.
void make_partial_file(const SaveRequest& request, const SaveLayout& layout, std::uint64_t nonce,
                       bool stamp);

// Steps 4 and 5 are the engine's: Engine::write and Engine::settle.

/// Step 6. Gives rank 0 all reports, and lets it write metadata, index, documents, commit record
/// and, last of all, the signature. `facts` (Writer::facts) go into the document "provenance".
/// Collective. Errors: io, timeout.
void commit(const Comm& comm, const SaveRequest& request, SaveLayout& layout,
            const std::map<std::string, std::string>& documents, const std::string& facts,
            const std::vector<PartReport>& reports);

/// Steps 3 to 7 with their cleanup: on Error the writer has let go of the partial file, and rank 0
/// has removed it. `enter` is called at each step. Collective. Errors: io, corrupt, mismatch,
/// timeout.
void carry_out(const Comm& comm, const SaveRequest& request, SaveLayout& layout,
               const SaveStart& start, Writer& writer, WriteJob job,
               const std::function<void(SaveStep)>& enter);
/// This rank's bytes of the layout's extents. Local.
std::vector<WriteItem> items_of(const StateView& state, const SaveLayout& layout);
/// What the writer needs, but for the bytes: tensors, nonce, file. Local.
WriteJob job_of(const SaveRequest& request, const SaveLayout& layout, const SaveStart& start);

/// Step 7. Rank 0 renames the file, syncs the directory and moves the `last` link. Collective.
void publish(const Comm& comm, const SaveRequest& request);

/// After step 7, on rank 0: removes what SaveOptions::retention does not keep. The save is done;
/// what fails here is a warning. Local. Calls no HDF5.
void retain(const SaveRequest& request) noexcept;

}  // namespace cairn::detail
