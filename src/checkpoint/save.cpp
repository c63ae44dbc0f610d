// A save, step by step (docs/design.md, "Saving"):
//  1. agree      the ranks check that they mean the same save, and whether the last layout fits
//  2. layout     once per structure: rank 0 plans, HDF5 builds the metadata, all learn the offsets
//  3. preflight  rank 0 makes the partial file and reserves its space
//  4. move       every rank writes its extents, taking their digests on the way
//  5. durable    every rank syncs; rank 0 gets the digests
//  6. commit     rank 0 writes metadata, index, documents, commit record and, last, the signature
//  7. publish    rank 0 renames, syncs the directory, moves the `last` link
// A failure before 7 leaves what was published before as it is; the partial file is removed.
#include <exception>
#include <optional>
#include <utility>

#include "base/throw.hpp"
#include "checkpoint/steps.hpp"
#include "manifest/names.hpp"
#include "os/fault.hpp"
#include "os/file.hpp"

namespace cairn {

using namespace detail;

std::string_view to_string(SaveStep step) {
  switch (step) {
    case SaveStep::agree:
      return "agree";
    case SaveStep::layout:
      return "layout";
    case SaveStep::preflight:
      return "preflight";
    case SaveStep::move:
      return "move";
    case SaveStep::durable:
      return "durable";
    case SaveStep::commit:
      return "commit";
    case SaveStep::publish:
      return "publish";
  }
  return "unknown";
}

struct Saver::Impl {
  const Comm& comm;
  SaveOptions options;
  std::unique_ptr<Engine> engine;
  std::optional<SaveLayout> layout;
  std::exception_ptr observer_failure;  // of the progress callback, until all ranks agree on it

  Impl(const Comm& c, SaveOptions o)
      : comm(c), options(std::move(o)), engine(make_engine(options.engine, options.transfer)) {
    if (options.progress) options.progress = guarded(std::move(options.progress));
  }

  /// A callback that throws on one rank between two collectives must not leave the others waiting.
  std::function<void(const SaveProgress&)> guarded(
      std::function<void(const SaveProgress&)> progress) {
    return [this, progress = std::move(progress)](const SaveProgress& now) {
      try {
        progress(now);
      } catch (...) {
        if (!observer_failure) observer_failure = std::current_exception();
      }
    };
  }

  void enter(SaveStep step) const {
    if (options.progress) options.progress({step, 0, 0});
  }

  WriteJob job_for(const SaveRequest& request, std::uint64_t nonce) const {
    WriteJob job;
    job.file = request.partial;
    job.nonce_at = layout->container.hdf5_bytes;
    job.nonce = nonce;
    job.tensors = layout->container.tensors;
    std::vector<const std::byte*> data;
    for (const TensorView& tensor : request.state.tensors) data.push_back(tensor.data);
    for (const auto& [name, bytes] : request.state.rank_blobs) data.push_back(bytes.data());
    std::uint64_t total = 0;
    for (const LayoutItem& item : layout->items) {
      job.items.push_back({item.tensor, &item.extent, data[item.piece] + item.skip});
      const TensorEntry& tensor = layout->container.tensors[item.tensor];
      total += item.extent.box.elements() * item_bytes(tensor.dtype);
    }
    if (options.progress) {
      job.progress = [this, total](std::uint64_t done) {
        options.progress({SaveStep::move, done, total});
      };
    }
    return job;
  }

  void run(const SaveRequest& request) {
    observer_failure = nullptr;  // of a save that failed otherwise
    enter(SaveStep::agree);
    const SaveStart start = agree_on_request(comm, request, layout ? &*layout : nullptr);
    if (!start.layout_fits) {
      enter(SaveStep::layout);
      layout.reset();
      layout = make_layout(comm, request, start.documents);
    }
    enter(SaveStep::preflight);
    WriteJob job;
    agree(comm, "save: preflight", [&] {
      fault_point("preflight");
      if (comm.is_root()) {
        make_partial_file(request, *layout, start.nonce, engine->needs_signature());
      }
      job = job_for(request, start.nonce);
    });
    enter(SaveStep::move);
    const auto digests = engine->write(comm, job);
    enter(SaveStep::durable);
    engine->settle(comm, options.durable);
    enter(SaveStep::commit);
    commit(comm, request, *layout, start.documents, digests);
    enter(SaveStep::publish);
    agree(comm, "save: progress callback", [&] {
      if (auto failure = std::exchange(observer_failure, nullptr)) std::rethrow_exception(failure);
    });
    publish(comm, request);
  }
};

Saver::Saver(const Comm& comm, SaveOptions options)
    : impl_(std::make_unique<Impl>(comm, std::move(options))) {}
Saver::~Saver() = default;
Saver::Saver(Saver&&) noexcept = default;
Saver& Saver::operator=(Saver&&) noexcept = default;

void Saver::save(const std::filesystem::path& target, const StateView& state) {
  const SaveRequest request{target, names::partial_file(target), state, impl_->options};
  try {
    impl_->run(request);
  } catch (...) {
    impl_->engine->abandon();
    if (impl_->comm.is_root()) remove_quietly(request.partial);
    throw;
  }
}

}  // namespace cairn
