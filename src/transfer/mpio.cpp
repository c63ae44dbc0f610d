#include "transfer/mpio.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/throw.hpp"
#include "mpi/io_component.hpp"
#include "mpi/time_limit.hpp"
#include "os/fault.hpp"
#include "os/file.hpp"
#include "plan/chunks.hpp"
#include "plan/region.hpp"
#include "plan/slices.hpp"
#include "transfer/read_back.hpp"
#include "transfer/reader.hpp"

namespace cairn::detail {
namespace {

// HDF5 1.10 fails at once on independent transfers of 2 GiB and more.
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 30;

// HDF5 holds all chunks of a transfer in memory, filtered and not.
constexpr std::uint64_t kMostFilteredBytes = 64 << 20;

std::vector<Box> filtered_slices(const Box& box, const TensorEntry& tensor, std::uint64_t item) {
  if (tensor.filters == 0) return {box};
  return slices_on_grid(box, tensor.chunk, kMostFilteredBytes / item);
}

/// Appends the boxes of one dense piece, in the order of its bytes.
void append_boxes(std::size_t position, const TensorEntry& tensor, const std::vector<Box>& region,
                  std::byte* data, std::vector<BoxTransfer>& out) {
  const std::uint64_t item = item_bytes(tensor.dtype);
  for (const Box& box : region) {
    for (const Box& part : filtered_slices(box, tensor, item)) {
      for (Box& slice : slices_of(part, kMostBytes / item)) {
        const std::uint64_t bytes = slice.elements() * item;
        out.push_back({position, std::move(slice), data});
        data += bytes;
      }
    }
  }
}

void sort_by_tensor(std::vector<BoxTransfer>& boxes) {
  std::stable_sort(boxes.begin(), boxes.end(),
                   [](const BoxTransfer& a, const BoxTransfer& b) { return a.tensor < b.tensor; });
}

}  // namespace

void MpioEngine::choose_component() {
  if (chosen_ || options_.component == IoComponent::automatic) return;
  pin_io_component(options_.component == IoComponent::ompio ? "ompio" : "romio");
  chosen_ = true;
}

ParallelIo MpioEngine::parallel_io(const Comm& comm) const {
  return {collective_, options_.hints, options_.watchdog.value_or(comm.deadline())};
}

void MpioEngine::take_note(const Comm& comm, const HintMap& in_force) {
  if (!comm.is_root() || !facts_.empty()) return;
  nlohmann::json facts{{"mpi", mpi_library()}, {"io", io_component()}, {"hints", in_force}};
  facts_ = facts.dump();
  if (facts_.size() > kMostFacts) {
    facts["hints"] = "too many to note";
    facts_ = facts.dump();
  }
  for (const auto& sentence : hints_without_effect(options_.hints, in_force, io_component())) {
    fmt::print(stderr, "cairn: warning: {}\n", sentence);
  }
}

std::vector<PartReport> MpioEngine::write(const Comm& comm, const WriteJob& job) {
  std::vector<BoxTransfer> boxes;
  std::vector<PartReport> reports;
  std::uint64_t total = 0;
  const File* file = nullptr;
  // A parallel open that fails on one rank only hangs the others: each tries it alone first.
  agree(comm, "save: move", [&] {
    fault_point("move");
    file = &open_partial(job);
    choose_component();
    for (const WriteItem& item : job.items) {
      const TensorEntry& tensor = job.tensors[item.tensor];
      const Extent& extent = *item.extent;
      const std::uint64_t bytes = extent.box.elements() * item_bytes(tensor.dtype);
      PartScan scan(tensor, extent, job.statistics);
      scan.update({item.data, bytes});
      reports.push_back(scan.report());
      total += bytes;
      // HDF5 takes one pointer type for both directions; a write only reads through it.
      auto* data = const_cast<std::byte*>(item.data);
      append_boxes(item.tensor, tensor, region_of(tensor, extent).boxes, data, boxes);
    }
    sort_by_tensor(boxes);
  });
  if (job.progress) job.progress(total / 2);
  ParallelIo io = parallel_io(comm);
  io.collective = io.collective || has_filters(job.tensors);  // HDF5 filters in no other way
  const HintMap in_force = transfer_boxes(comm, job.file, job.tensors, boxes, Direction::write, io);
  agree(comm, "save: read back", [&] {
    take_note(comm, in_force);
    check_read_back(job, *file, reports, "MPI-IO", "use 'engine: direct'");
  });
  if (job.progress) job.progress(total);
  return reports;
}

std::uint64_t MpioEngine::read(const Comm& comm, const Manifest& manifest,
                               std::span<const ReadItem> items) {
  std::uint64_t bytes = 0;
  std::vector<std::vector<BoxTransfer>> boxes(manifest.files.size());  // by file
  std::vector<std::uint64_t> wanted(manifest.files.size(), 0);         // by any rank
  agree(comm, "load: move", [&] {
    fault_point("load.move");
    check_time_limit();  // MPI-IO itself can't be called off
    choose_component();
    manifest.tensors.all();  // decodes the table here, where a failure is agreed on
    for (const ReadItem& item : items) {
      const TensorEntry& tensor = manifest.tensors[item.tensor];
      append_boxes(item.tensor, tensor, region_of(*item.piece, item_bytes(tensor.dtype)).boxes,
                   item.data, boxes.at(file_of(tensor)));
      wanted[file_of(tensor)] = 1;
      bytes += item.piece->elements() * item_bytes(tensor.dtype);
    }
    for (auto& of_file : boxes) sort_by_tensor(of_file);
  });
  if (wanted.size() == 1) {
    wanted[0] = 1;  // by this rank or another
  } else {
    comm.all_reduce_max(std::span<std::uint64_t>(wanted));
  }
  // A parallel open that fails on one rank only hangs the others: each tries it alone first.
  agree(comm, "load: move", [&] {
    for (std::size_t f = 0; f < wanted.size(); ++f) {
      if (wanted[f] != 0) open_same(manifest.files[f]);
    }
  });
  for (std::size_t f = 0; f < wanted.size(); ++f) {
    if (wanted[f] == 0) continue;
    const HintMap in_force = transfer_boxes(comm, manifest.files[f].path, manifest.tensors,
                                            boxes[f], Direction::read, parallel_io(comm));
    agree(comm, "load: move", [&] {
      if (!options_.hints.empty()) take_note(comm, in_force);
    });
  }
  return bytes;
}

}  // namespace cairn::detail
