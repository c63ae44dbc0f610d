// A conversion, step by step:
//  1. plan     every rank, from the same manifest: which tensors, their names and dtypes
//  2. verify   the ranks share the digests of what is wanted, where the source has any
//  3. write    into a hidden file, every rank its share, read back; then the file is published
// Of a container, 3 is a save whose bytes come from the source (docs/design.md, "Saving"). A
// safetensors file goes the same way: its first 8 bytes, without which it is none, are written
// last.
#include "checkpoint/convert.hpp"

#include <algorithm>
#include <cstring>
#include <system_error>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "checkpoint/convert_plan.hpp"
#include "checkpoint/filter.hpp"
#include "checkpoint/steps.hpp"
#include "checkpoint/verify.hpp"
#include "formats/safetensors/writer.hpp"
#include "manifest/names.hpp"
#include "mpi/same.hpp"
#include "os/file.hpp"
#include "transfer/copy_writer.hpp"

namespace cairn::detail {
namespace {

std::uint64_t options_hash(const ConvertOptions& options) {
  Digester digester;
  digester.update(static_cast<std::uint64_t>(options.to));
  digester.update(static_cast<std::uint64_t>(options.overwrite));
  digester.update(static_cast<std::uint64_t>(options.weights_only));
  digester.update(static_cast<std::uint64_t>(options.durable));
  digester.update(options.dtype ? static_cast<std::uint64_t>(*options.dtype) : 0);
  for (const auto& [from, to] : options.rename) {
    digester.update(from);
    digester.update(to);
  }
  update(digester, options.select);
  return digester.value();
}

void check_target(const Manifest& source, const std::filesystem::path& target, bool overwrite) {
  std::error_code ignored;
  if (!std::filesystem::exists(target, ignored)) return;
  if (!overwrite) {
    fail(Errc::usage, "'{}' exists; name another file, or overwrite it with --force",
         target.string());
  }
  for (const FileEntry& file : source.files) {
    if (!std::filesystem::equivalent(file.path, target, ignored)) continue;
    fail(Errc::usage, "'{}' is a file of the checkpoint that is to be converted", target.string());
  }
}

/// Of the memory for bytes on their way: a window as it is stored, and one as it is written.
std::uint64_t window_bytes(const ConvertOptions& options) {
  constexpr std::uint64_t kLeast = 1 << 20;
  constexpr std::uint64_t kMost = 32 << 20;  // larger requests are no faster
  return std::clamp(options.memory_bytes / 4, kLeast, kMost);
}

std::function<void(std::uint64_t)> progress_of(const WriteJob& job, const ConvertOptions& options) {
  if (!options.progress) return {};
  std::uint64_t total = 0;
  for (const WriteItem& item : job.items) {
    total += item.extent->box.elements() * item_bytes(job.tensors[item.tensor].dtype);
  }
  return [total, &options](std::uint64_t done) { options.progress(done, total); };
}

void write_container(const Comm& comm, const Manifest& source, const std::filesystem::path& target,
                     const ConvertPlan& plan, const ConvertOptions& options) {
  StateView state;
  SaveOptions save;
  save.durable = options.durable;
  agree(comm, "convert: plan", [&] {
    // Replicas: the planner divides what they hold among the ranks, by bytes.
    for (const TensorEntry& tensor : plan.tensors) {
      state.tensors.push_back(
          {tensor.name, tensor.dtype, Placement::replicated(tensor.shape), nullptr});
    }
    state.documents = plan.documents;
    state.step = plan.step;
  });
  const SaveRequest request{target, names::partial_file(target), state, save,
                            /*bytes_elsewhere=*/true};
  const SaveStart start = agree_on_request(comm, request, nullptr);
  SaveLayout layout = make_layout(comm, request, start.documents);
  WriteJob job;
  std::vector<std::size_t> sources;
  agree(comm, "convert: plan", [&] {
    job = job_of(request, layout, start);
    for (const LayoutItem& item : layout.items) {
      job.items.push_back({item.tensor, &item.extent, nullptr});
      sources.push_back(plan.sources[item.piece]);
    }
    job.progress = progress_of(job, options);
  });
  CopyWriter writer(source, std::move(sources), window_bytes(options));
  carry_out(comm, request, layout, start, writer, std::move(job), [](SaveStep) {});
}

/// This rank's elements of the file's tensors: a run of its bytes, about as long as that of others.
struct Share {
  std::vector<Extent> extents;
  std::vector<std::size_t> tensors;  ///< of each: position in the layout
};

Share share_of(const SafetensorsLayout& layout, int size, int rank) {
  const Range mine = balanced_range(layout.file_bytes - layout.head.size(), size, rank);
  const std::uint64_t begin = layout.head.size() + mine.start;
  const std::uint64_t end = begin + mine.count;
  Share share;
  for (std::size_t t = 0; t < layout.tensors.size(); ++t) {
    const TensorEntry& tensor = layout.tensors[t];
    const std::uint64_t item = item_bytes(tensor.dtype);
    // An element belongs to the rank whose run its first byte lies in.
    const auto elements_before = [&](std::uint64_t at) {
      const std::uint64_t inside = std::clamp(at, tensor.offset, tensor.offset + tensor.bytes());
      return (inside - tensor.offset + item - 1) / item;
    };
    const std::uint64_t first = elements_before(begin);
    const std::uint64_t last = elements_before(end);
    if (first >= last) continue;
    Extent extent;
    extent.flat = true;
    extent.offset = tensor.offset + first * item;
    extent.box = {{first}, {last - first}};
    share.extents.push_back(std::move(extent));
    share.tensors.push_back(t);
  }
  return share;
}

/// The file but for its first 8 bytes, which hold the nonce.
void make_file(const SaveRequest& request, const SafetensorsLayout& layout, std::uint64_t nonce) {
  make_directories(request.target.parent_path());
  File file = File::create(request.partial);
  file.reserve(layout.file_bytes);
  const auto head = std::as_bytes(std::span(layout.head));
  file.write_at(sizeof(nonce), head.subspan(sizeof(nonce)), "preflight.write");
  file.write_at(0, std::as_bytes(std::span(&nonce, 1)), "preflight.write");
  file.close();
}

void finish_file(const SaveRequest& request, const SafetensorsLayout& layout) {
  File file = File::open_write(request.partial);
  file.write_at(0, std::as_bytes(std::span(layout.head)).first(sizeof(std::uint64_t)),
                "commit.write");
  if (request.options.durable) file.sync();
  file.close();
}

void write_safetensors(const Comm& comm, const Manifest& source, const SaveRequest& request,
                       const ConvertPlan& plan, const ConvertOptions& options) {
  SafetensorsLayout layout;
  Share share;
  WriteJob job;
  std::vector<std::size_t> sources;
  std::uint64_t nonce[1] = {0};
  agree(comm, "convert: plan", [&] {
    const auto metadata = plan.documents.find("__metadata__");
    layout =
        lay_out_safetensors(plan.tensors, metadata == plan.documents.end() ? "" : metadata->second);
    share = share_of(layout, comm.size(), comm.rank());
    job.file = request.partial;
    job.tensors = layout.tensors;
    for (std::size_t i = 0; i < share.extents.size(); ++i) {
      job.items.push_back({share.tensors[i], &share.extents[i], nullptr});
      sources.push_back(plan.sources[layout.positions[share.tensors[i]]]);
    }
    job.progress = progress_of(job, options);
    if (comm.is_root()) nonce[0] = random_nonce();
  });
  comm.all_reduce_max(std::span<std::uint64_t>(nonce));
  job.nonce = nonce[0];
  CopyWriter writer(source, std::move(sources), window_bytes(options));
  try {
    agree(comm, "convert: preflight", [&] {
      if (comm.is_root()) make_file(request, layout, nonce[0]);
    });
    writer.write(comm, job);
    writer.settle(comm, options.durable);
    agree(comm, "convert: commit", [&] {
      if (comm.is_root()) finish_file(request, layout);
    });
    publish(comm, request);
  } catch (...) {
    writer.abandon();
    if (comm.is_root()) remove_quietly(request.partial);
    throw;
  }
}

}  // namespace

ConvertResult convert_checkpoint(const Comm& comm, const Manifest& source,
                                 const std::filesystem::path& target,
                                 const ConvertOptions& options) {
  ConvertPlan plan;
  std::vector<Argument> arguments;
  std::vector<std::uint64_t> wanted(source.tensors.size());
  agree(comm, "convert: plan", [&] {
    if (target.filename().empty()) fail(Errc::usage, "'{}' does not name a file", target.string());
    if (comm.is_root()) check_target(source, target, options.overwrite);
    plan = plan_conversion(source, options);
    for (const std::size_t t : plan.sources) wanted[t] = 1;
    arguments = {{"checkpoint", identity_of(source)},
                 {"path", digest_of(target.string())},
                 {"options", options_hash(options)}};
  });
  require_same(comm, "convert: plan", arguments);
  const VerifyReport report = verify_wanted(comm, source, wanted);
  if (!report.defects.empty()) {
    throw Error(Errc::corrupt,
                fmt::format("convert: {}; nothing was written", report.defects.front().text),
                /*rank=*/0);
  }
  if (options.to == TargetFormat::cairn) {
    write_container(comm, source, target, plan, options);
  } else {
    const StateView nothing;
    SaveOptions save;
    save.durable = options.durable;
    write_safetensors(comm, source, {target, names::partial_file(target), nothing, save}, plan,
                      options);
  }
  return plan.result;
}

}  // namespace cairn::detail
