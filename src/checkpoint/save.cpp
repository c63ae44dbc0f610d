// A save, step by step (docs/design.md, "Saving"):
//  1. agree      the ranks check that they mean the same save, and whether the last layout fits
//  2. layout     once per structure: rank 0 plans, HDF5 builds the metadata, all learn the offsets
//  3. preflight  rank 0 makes the partial file and reserves its space
//  4. move       every rank writes its extents, taking their digests on the way
//  5. durable    every rank syncs; rank 0 gets the digests
//  6. commit     rank 0 writes metadata, index, documents, commit record and, last, the signature
//  7. publish    rank 0 renames, syncs the directory, moves the `last` link
// Then rank 0 removes the checkpoints that are not to be kept; what fails there fails no save.
// A failure before 7 leaves what was published before as it is; the partial file is removed.
#include <exception>
#include <optional>
#include <utility>

#include "base/throw.hpp"
#include "checkpoint/saver.hpp"
#include "manifest/names.hpp"
#include "os/fault.hpp"
#include "os/file.hpp"
#include "os/memory.hpp"

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

namespace detail {

std::vector<WriteItem> items_of(const StateView& state, const SaveLayout& layout) {
  std::vector<const std::byte*> data;
  for (const TensorView& tensor : state.tensors) data.push_back(tensor.data);
  for (const auto& [name, bytes] : state.rank_blobs) data.push_back(bytes.data());
  std::vector<WriteItem> items;
  items.reserve(layout.items.size());
  for (const LayoutItem& item : layout.items) {
    items.push_back({item.tensor, &item.extent, data[item.piece] + item.skip});
  }
  return items;
}

WriteJob job_of(const SaveRequest& request, const SaveLayout& layout, const SaveStart& start) {
  WriteJob job;
  job.file = request.partial;
  job.nonce_at = layout.container.hdf5_bytes;
  job.nonce = start.nonce;
  job.tensors = layout.container.tensors;
  job.statistics = request.options.statistics;
  job.durable = request.options.durable;
  return job;
}

void carry_out(const Comm& comm, const SaveRequest& request, SaveLayout& layout,
               const SaveStart& start, Writer& writer, WriteJob job,
               const std::function<void(SaveStep)>& enter) {
  try {
    enter(SaveStep::preflight);
    agree(comm, "save: preflight", [&] {
      fault_point("preflight");
      if (!comm.is_root()) return;
      make_partial_file(request, layout, start.nonce, writer.needs_signature());
    });
    enter(SaveStep::move);
    const auto reports = writer.write(comm, job);
    enter(SaveStep::durable);
    writer.settle(comm, request.options.durable);
    enter(SaveStep::commit);
    commit(comm, request, layout, start.documents, writer.facts(), reports);
    enter(SaveStep::publish);
    publish(comm, request);
    if (comm.is_root()) retain(request);
  } catch (...) {
    writer.abandon();
    if (comm.is_root()) remove_quietly(request.partial);
    throw;
  }
}

}  // namespace detail

Saver::Impl::Impl(const Comm& c, SaveOptions o)
    : comm(c),
      options(std::move(o)),
      engine(make_engine(options.engine, options.transfer, options.mpio)) {
  if (options.progress) options.progress = guarded(std::move(options.progress));
}

std::function<void(const SaveProgress&)> Saver::Impl::guarded(
    std::function<void(const SaveProgress&)> progress) {
  return [this, progress = std::move(progress)](const SaveProgress& now) {
    try {
      progress(now);
    } catch (...) {
      if (!observer_failure) observer_failure = std::current_exception();
    }
  };
}

void Saver::Impl::enter(SaveStep step) {
  if (options.progress) options.progress({step, 0, 0});
  if (step != SaveStep::publish) return;
  agree(comm, "save: progress callback", [&] {
    if (auto failure = std::exchange(observer_failure, nullptr)) std::rethrow_exception(failure);
  });
}

SaveStart Saver::Impl::begin(const SaveRequest& request) {
  SaveStart start = agree_on_request(comm, request, layout.get());
  if (!start.layout_fits) {
    enter(SaveStep::layout);
    layout.reset();  // one that is still written from is kept by its save
    layout = std::make_shared<SaveLayout>(make_layout(comm, request, start.documents));
    // Buffers would come on top of what planning and HDF5 took, on rank 0 alone.
    if (comm.is_root()) give_back_freed_memory();
  }
  check_replicas(comm, request, *layout);
  return start;
}

std::shared_ptr<SaveLayout> Saver::Impl::layout_for(const SaveRequest& request) {
  if (!options.delta) return layout;
  std::vector<WriteItem> items;
  agree(comm, "save: find what changed", [&] { items = items_of(request.state, *layout); });
  return delta.choose(comm, request, layout, items);
}

void Saver::Impl::save(const SaveRequest& request) {
  observer_failure = nullptr;  // of a save that failed otherwise
  enter(SaveStep::agree);
  const SaveStart start = begin(request);
  const std::shared_ptr<SaveLayout> chosen = layout_for(request);
  WriteJob job;
  agree(comm, "save: preflight", [&] {
    job = job_of(request, *chosen, start);
    job.items = items_of(request.state, *chosen);
    if (!options.progress) return;
    const std::uint64_t total = bytes_of(job.items, job.tensors);
    job.progress = [this, total](std::uint64_t done) {
      options.progress({SaveStep::move, done, total});
    };
  });
  carry_out(comm, request, *chosen, start, *engine, std::move(job),
            [this](SaveStep step) { enter(step); });
}

Saver::Saver(const Comm& comm, SaveOptions options)
    : impl_(std::make_unique<Impl>(comm, std::move(options))) {}
Saver::~Saver() {
  // A thread that does not come back may still do so, and find its things there.
  if (impl_ && impl_->background && impl_->background->is_lost()) {
    static_cast<void>(impl_.release());
  }
}
Saver::Saver(Saver&&) noexcept = default;
Saver& Saver::operator=(Saver&& other) noexcept {
  Saver taken(std::move(other));
  std::swap(impl_, taken.impl_);  // what was here ends as in ~Saver
  return *this;
}

void Saver::save(const std::filesystem::path& target, const StateView& state) {
  impl_->wait_for_at_most(0);
  impl_->save({target, names::partial_file(target), state, impl_->options});
}

void Saver::prepare_layout(const std::filesystem::path& target, const StateView& state) {
  impl_->wait_for_at_most(0);
  impl_->begin({target, names::partial_file(target), state, impl_->options});
}

}  // namespace cairn
