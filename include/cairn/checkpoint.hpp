#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/async.hpp"
#include "cairn/comm.hpp"
#include "cairn/engine.hpp"
#include "cairn/export.hpp"
#include "cairn/load.hpp"
#include "cairn/manifest.hpp"
#include "cairn/retention.hpp"
#include "cairn/tensor_view.hpp"

namespace cairn {

/// The steps of the save protocol (docs/design.md), in order.
enum class SaveStep : std::uint8_t { agree, layout, preflight, move, durable, commit, publish };
CAIRN_EXPORT std::string_view to_string(SaveStep step);

/// Where a save is. Within `move`, `bytes_done` of this rank's `bytes_total` are written.
struct SaveProgress {
  SaveStep step = SaveStep::agree;
  std::uint64_t bytes_done = 0;
  std::uint64_t bytes_total = 0;
};

/// Whether a save first compares what ranks hold that should hold the same.
enum class ReplicaCheck : std::uint8_t {
  off,
  sample,  ///< 4 KiB of every MiB, other ones in each step
  full,    ///< every byte
};

struct SaveOptions {
  EngineKind engine = EngineKind::direct;
  Transfer transfer = Transfer::collective;
  MpioOptions mpio{};
  /// fsync data, metadata and directory before the checkpoint is published.
  bool durable = true;
  /// Record the Statistics of every tensor, taken while its bytes are written.
  bool statistics = false;
  /// Replicas that differ are an Error that names the tensor and the ranks.
  ReplicaCheck replica_check = ReplicaCheck::off;
  /// Tensors that equal, by name, dtype, shape and digest, those of the newest checkpoint in the
  /// directory are not written again: the new container refers to the older file that holds them,
  /// which it needs from then on, under its name and in the same directory. Such files are not
  /// removed by `retention`, nor replaced by a save.
  bool delta = false;
  /// Which checkpoints of the directory stay when another one is committed. Rank 0 removes the
  /// others: of the files that have the name of a step's checkpoint those that are committed. What
  /// can't be removed is a warning on stderr.
  RetentionPolicy retention{};
  /// Called on the calling thread of each rank as the save advances. Must not communicate. When it
  /// throws on any rank, the save fails on all ranks before it is published.
  /// Not called by saves in the background.
  std::function<void(const SaveProgress&)> progress;
  AsyncOptions async;
};

/// What one rank contributes to a checkpoint. Only read; must stay alive and unchanged during the
/// save.
struct StateView {
  std::vector<TensorView> tensors;
  /// Bytes that belong to this rank alone, by name (for example "rng"). The names must be the same
  /// on all ranks, the sizes need not.
  std::map<std::string, std::vector<std::byte>> rank_blobs;
  /// JSON documents by name; rank 0's are written. "topology" and "provenance" are added by cairn.
  std::map<std::string, std::string> documents;
  std::uint64_t step = 0;
};

/// Saves checkpoints of one training run. Keeps the layout of the last structure, so that the
/// second and later saves of equal names, dtypes, shapes and placements move bytes and nothing
/// else.
class CAIRN_EXPORT Saver {
 public:
  /// Local. `comm` must outlive the Saver.
  Saver(const Comm& comm, SaveOptions options);
  /// Saves in the background are completed if MPI gives MPI_THREAD_MULTIPLE; otherwise they are
  /// given up and rank 0's stderr says so: call wait() before. MPI_Finalize completes them, too.
  ~Saver();
  Saver(Saver&&) noexcept;
  Saver& operator=(Saver&&) noexcept;

  /// Writes `state` to `target`, replacing it atomically, and moves the `last` link beside it where
  /// `target` has the name of a step's checkpoint. Collective. On return the checkpoint is
  /// published (and durable, unless switched off). On Error no reader will ever take the attempt
  /// for a checkpoint, and what `target` held before is unharmed; the one exception is a failure
  /// after the rename, in the step "publish": the new checkpoint is then whole and in place, but
  /// not known to be durable. Errors: usage, mismatch (ranks disagree, pieces do not tile), io,
  /// timeout.
  void save(const std::filesystem::path& target, const StateView& state);

  /// The same in the background: returns as soon as `state` is copied, so that it may change. Each
  /// rank copies only what it writes. The first save of a structure also makes its layout before it
  /// returns; prepare() does that earlier. The engine must be direct. Where MPI gives
  /// MPI_THREAD_MULTIPLE, a thread of cairn's takes the save to its end; otherwise poll() and
  /// wait() do the communication. Collective. Errors: those of save() that can be known by then,
  /// and those of earlier saves (AsyncOptions::on_failure).
  AsyncSave save_async(const std::filesystem::path& target, const StateView& state);
  /// Makes the layout, and takes the memory, for saves of `state` to come. `target` names a file in
  /// the directory of those saves. Collective. Errors: those of save().
  void prepare(const std::filesystem::path& target, const StateView& state);
  /// Makes the layout alone, for saves of `state` to come that are not in the background. `target`
  /// as above. Collective. Errors: those of save().
  void prepare_layout(const std::filesystem::path& target, const StateView& state);
  /// Takes saves in the background a step further, where they need that, and tells of their
  /// failures. Costs one small reduction while any save is on its way, otherwise nothing.
  /// Collective. Errors: those of save().
  void poll();
  /// Returns when every save in the background has ended. Collective. Errors: those of save().
  void wait();
  /// Waits, and frees what saves in the background took: thread, memory, communicators. Collective;
  /// optional. Errors: those of save().
  void close();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Reads the table of the checkpoint `path` on rank 0 and gives it to all ranks. Collective.
/// Checks digests of all but tensors. Errors: not_found, corrupt, unsupported, unsafe, io, timeout.
CAIRN_EXPORT Manifest open_checkpoint(const Comm& comm, const std::filesystem::path& path);
/// The same for one process. Local.
CAIRN_EXPORT Manifest open_checkpoint(const std::filesystem::path& path);

/// Fills `targets`, this rank's pieces of any tensors, at any placement. Collective.
/// Every piece must fit the checkpoint's global shape, and its dtype unless LoadOptions::cast is
/// set. All checks pass on all ranks before any target changes. An Error while the bytes move (io,
/// timeout), and a wrong digest with VerifyWhen::loaded, leave targets filled, or partly, and say
/// so. Every rank gives the same checkpoint and options. Errors: usage, not_found (also for a
/// filter that matches nothing), mismatch, corrupt, io, timeout.
CAIRN_EXPORT LoadResult load_tensors(const Comm& comm, const Manifest& manifest,
                                     std::span<const MutableTensorView> targets,
                                     const LoadOptions& options = {});

/// This rank's blob as the same rank saved it; nothing where there is none of that name, or another
/// number of ranks saved. Collective. Errors: mismatch, not_found, corrupt, io, timeout.
CAIRN_EXPORT std::optional<std::vector<std::byte>> load_rank_blob(const Comm& comm,
                                                                  const Manifest& manifest,
                                                                  const std::string& name);

/// One damaged part of a checkpoint.
struct Defect {
  std::string tensor;  ///< empty: not in a tensor's data
  Box box;             ///< the damaged part of the tensor, or flat range
  int writer = -1;     ///< the rank that wrote it
  std::string text;
  /// The file that holds the damaged bytes: with SaveOptions::delta perhaps an older checkpoint.
  /// Empty where the damage is in no tensor's data.
  std::filesystem::path file;
};

struct VerifyReport {
  std::uint64_t tensors = 0;  ///< tensors that were checked as a whole
  /// Tensors that the file has no digests of, as most formats have none: nothing can tell whether
  /// their bytes are what was saved.
  std::uint64_t unchecked = 0;
  std::uint64_t extents = 0;
  std::uint64_t bytes = 0;  ///< bytes whose digest was checked
  std::vector<Defect> defects;
};

/// Checks the digests of the named tensors (all when empty), sharing the work. The report is the
/// same on all ranks. Collective. Errors: mismatch, not_found, io, timeout; damage is reported.
CAIRN_EXPORT VerifyReport verify_tensors(const Comm& comm, const Manifest& manifest,
                                         const std::vector<std::string>& names = {});

/// The file name of a step's checkpoint, "step-00001000.h5".
CAIRN_EXPORT std::filesystem::path checkpoint_path(const std::filesystem::path& run_dir,
                                                   std::uint64_t step);
/// The committed checkpoint of the highest step in `run_dir`, judged by commit records, never by
/// file names, dates or the `last` link alone. One that a load found damaged (skip_damaged) is
/// passed over, unless all were: then it is the newest of them, so that a load tells, and no run
/// starts anew for it. Local. Errors: io.
CAIRN_EXPORT std::optional<std::filesystem::path> newest_checkpoint(
    const std::filesystem::path& run_dir);

}  // namespace cairn
