#include "transfer/mpio.hpp"

#include <algorithm>

#include "base/throw.hpp"
#include "formats/hdf5/parallel.hpp"
#include "os/fault.hpp"
#include "os/file.hpp"
#include "plan/region.hpp"
#include "plan/slices.hpp"
#include "transfer/read_back.hpp"
#include "transfer/reader.hpp"

namespace cairn::detail {
namespace {

// HDF5 1.10 fails at once on independent transfers of 2 GiB and more.
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 30;

/// Appends the boxes of one dense piece, in the order of its bytes.
void append_boxes(std::size_t tensor, const std::vector<Box>& region, std::uint64_t item,
                  std::byte* data, std::vector<BoxTransfer>& out) {
  for (const Box& box : region) {
    for (Box& slice : slices_of(box, kMostBytes / item)) {
      const std::uint64_t bytes = slice.elements() * item;
      out.push_back({tensor, std::move(slice), data});
      data += bytes;
    }
  }
}

void sort_by_tensor(std::vector<BoxTransfer>& boxes) {
  std::stable_sort(boxes.begin(), boxes.end(),
                   [](const BoxTransfer& a, const BoxTransfer& b) { return a.tensor < b.tensor; });
}

}  // namespace

std::vector<PartReport> MpioEngine::write(const Comm& comm, const WriteJob& job) {
  std::vector<BoxTransfer> boxes;
  std::vector<PartReport> reports;
  std::uint64_t total = 0;
  const File* file = nullptr;
  // A parallel open that fails on one rank only hangs the others: each tries it alone first.
  agree(comm, "save: move", [&] {
    fault_point("move");
    file = &open_partial(job);
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
      append_boxes(item.tensor, region_of(tensor, extent).boxes, item_bytes(tensor.dtype), data,
                   boxes);
    }
    sort_by_tensor(boxes);
  });
  if (job.progress) job.progress(total / 2);
  transfer_boxes(comm, job.file, job.tensors, boxes, Direction::write, collective_);
  agree(comm, "save: read back",
        [&] { check_read_back(job, *file, reports, "MPI-IO", "use 'engine: direct'"); });
  if (job.progress) job.progress(total);
  return reports;
}

void MpioEngine::read(const Comm& comm, const Manifest& manifest, std::span<const ReadItem> items) {
  std::vector<BoxTransfer> boxes;
  agree(comm, "load: move", [&] {
    fault_point("load.move");
    open_same(manifest.files.at(0));
    manifest.tensors.all();  // decodes the table here, where a failure is agreed on
    for (const ReadItem& item : items) {
      const std::uint64_t bytes = item_bytes(manifest.tensors[item.tensor].dtype);
      append_boxes(item.tensor, region_of(*item.piece, bytes).boxes, bytes, item.data, boxes);
    }
    sort_by_tensor(boxes);
  });
  transfer_boxes(comm, manifest.path(), manifest.tensors, boxes, Direction::read, collective_);
}

}  // namespace cairn::detail
