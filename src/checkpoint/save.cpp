// A save, step by step (docs/design.md, "Saving"):
//  1. agree      the ranks check that they mean the same save, and whether the last layout fits
//  2. layout     once per structure: rank 0 plans, HDF5 builds the metadata, all learn the offsets
//  3. preflight  rank 0 makes the partial file and reserves its space
//  4. move       every rank writes its extents, taking their digests on the way
//  5. durable    every rank syncs; rank 0 gets the digests
//  6. commit     rank 0 writes metadata, index, documents, commit record and, last, the signature
//  7. publish    rank 0 renames, syncs the directory, moves the `last` link
// A failure before 7 leaves what was published before as it is; the partial file is removed.
#include <unistd.h>

#include <array>
#include <exception>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/throw.hpp"
#include "cairn/version.hpp"
#include "checkpoint/steps.hpp"
#include "manifest/names.hpp"
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

namespace {

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

std::map<std::string, std::string> with_own_documents(const Comm& comm, const StateView& state,
                                                      const SaveOptions& options) {
  auto documents = state.documents;
  documents["topology"] = nlohmann::json{{"world_size", comm.size()}}.dump();
  documents["provenance"] = nlohmann::json{
      {"library", "cairn"},
      {"version", CAIRN_VERSION_STRING},
      {"engine", to_string(options.engine)},
      {"host", host_name()}}.dump();
  return documents;
}

/// Whether rank 0's documents have other names or outgrew their rooms.
bool documents_fit(const ContainerLayout& layout,
                   const std::map<std::string, std::string>& documents) {
  if (documents.size() != layout.documents.size()) return false;
  for (const auto& [name, text] : documents) {
    const auto slot = layout.documents.find(name);
    if (slot == layout.documents.end() || text.size() >= slot->second.span.bytes) return false;
  }
  return true;
}

}  // namespace

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

  WriteJob job_for(const SaveRequest& request) const {
    WriteJob job;
    job.file = request.partial;
    job.tensors = layout->container.tensors;
    std::vector<const std::byte*> data;
    for (const TensorView& tensor : request.state.tensors) data.push_back(tensor.data);
    for (const auto& [name, bytes] : request.state.rank_blobs) data.push_back(bytes.data());
    std::uint64_t total = 0;
    for (const auto& [item, piece] : layout->items) {
      job.items.push_back({item.tensor, item.extent, data[piece]});
      const TensorEntry& tensor = layout->container.tensors[item.tensor];
      total += tensor.extents[item.extent].box.elements() * item_bytes(tensor.dtype);
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
    const auto documents = with_own_documents(comm, request.state, options);
    // Only rank 0 has documents that count; its vote stands for all.
    const bool outgrown = layout && comm.is_root() && !documents_fit(layout->container, documents);
    const bool reusable = agree_on_request(comm, request, layout && !outgrown ? &*layout : nullptr);
    if (!reusable) {
      enter(SaveStep::layout);
      layout.reset();
      layout = make_layout(comm, request, documents);
    }
    enter(SaveStep::preflight);
    preflight(comm, request, *layout, engine->needs_signature());
    enter(SaveStep::move);
    const auto digests = engine->write(comm, job_for(request));
    enter(SaveStep::durable);
    commit(comm, request, *layout, documents, digests);
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
    if (impl_->comm.is_root()) remove_quietly(request.partial);
    throw;
  }
}

}  // namespace cairn
