#include "transfer/direct.hpp"

#include <algorithm>
#include <tuple>
#include <vector>

#include "os/fault.hpp"
#include "os/file.hpp"
#include "plan/region.hpp"
#include "transfer/reader.hpp"
#include "transfer/runs.hpp"

namespace cairn::detail {
namespace {

void write_dense(RunWriter& runs, PartScan& scan, const Extent& extent,
                 std::span<const std::byte> bytes) {
  const std::uint64_t step = runs.window_bytes();
  for (std::uint64_t at = 0; at < bytes.size(); at += step) {
    const auto window = bytes.subspan(at, std::min(step, bytes.size() - at));
    runs.add(extent.offset + at, window.data(), window.size());
    scan.update(window);
  }
}

void write_rows(RunWriter& runs, PartScan& scan, const TensorEntry& tensor, const Extent& extent,
                std::span<const std::byte> bytes) {
  const std::uint64_t item = item_bytes(tensor.dtype);
  const Region in_memory = dense_region(tensor.shape, extent.flat, extent.box, 0, item);
  const Region in_file = region_of(tensor, extent);
  for_each_run(extent.box, in_file, in_memory, item,
               [&](std::uint64_t at, std::uint64_t from, std::uint64_t count) {
                 runs.add(at, bytes.data() + from, count);
               });
  scan.update(bytes);
}

}  // namespace

std::vector<PartReport> DirectEngine::write(const Comm& comm, const WriteJob& job) {
  std::vector<PartReport> reports;
  agree(comm, "save: move", [&] {
    fault_point("move");
    if (job.items.empty()) return;
    reports.reserve(job.items.size());
    const File& file = open_partial(job);
    std::uint64_t done = 0;
    const WriteBack write_back = job.durable ? WriteBack::past_cache : WriteBack::later;
    RunWriter runs(file, "move.write", write_back, [&](std::uint64_t bytes) {
      done += bytes;
      if (job.progress) job.progress(done);
    });
    for (const WriteItem& item : job.items) {
      const TensorEntry& tensor = job.tensors[item.tensor];
      const Extent& extent = *item.extent;
      const std::span bytes(item.data, extent.box.elements() * item_bytes(tensor.dtype));
      PartScan scan(tensor, extent, job.statistics);
      if (lies_in_rows(tensor, extent)) {
        write_rows(runs, scan, tensor, extent, bytes);
      } else {
        write_dense(runs, scan, extent, bytes);
      }
      reports.push_back(scan.report());
    }
    runs.flush();
    fault_point("move.end");
  });
  return reports;
}

std::uint64_t DirectEngine::read(const Comm& comm, const Manifest& manifest,
                                 std::span<const ReadItem> items) {
  std::uint64_t bytes = 0;
  agree(comm, "load: move", [&] {
    fault_point("load.move");
    Reader reader(manifest);
    // In the order of the files, so that neighbouring tensors make large requests.
    std::vector<std::tuple<std::uint32_t, std::uint64_t, const ReadItem*>> order;
    order.reserve(items.size());
    for (const ReadItem& item : items) {
      if (item.run) {
        order.emplace_back(item.run->file, item.run->offset, &item);
        continue;
      }
      const auto& extents = manifest.tensors[item.tensor].extents;
      order.emplace_back(extents.empty() ? 0 : extents.front().file,
                         extents.empty() ? 0 : extents.front().offset, &item);
    }
    if (!std::is_sorted(order.begin(), order.end())) std::sort(order.begin(), order.end());
    for (const auto& [file, offset, item] : order) {
      if (item->run) {
        const std::uint64_t unit = item_bytes(manifest.tensors.head(item->tensor).dtype);
        reader.add_run(file, offset, item->data, item->piece->elements() * unit);
      } else {
        reader.add(manifest.tensors[item->tensor], *item->piece, item->data);
      }
    }
    reader.flush();
    bytes = reader.bytes_read();
    fault_point("load.move.end");
  });
  return bytes;
}

}  // namespace cairn::detail
