#include <optional>
#include <utility>

#include "base/throw.hpp"
#include "os/fault.hpp"
#include "os/file.hpp"
#include "plan/region.hpp"
#include "transfer/runs.hpp"
#include "transfer/staging.hpp"

namespace cairn::detail {
namespace {

/// Adds the runs of a part to the requests.
void write_part(RunWriter& runs, const TensorEntry& tensor, const Extent& extent,
                const StagedBlock& block, const StagedPart& part, std::uint64_t done) {
  const std::uint64_t item = item_bytes(tensor.dtype);
  if (!lies_in_rows(tensor, extent)) {
    runs.add(extent.offset + done, part.data, part.bytes);
    return;
  }
  const Box& box = block.boxes[part.box];
  const Region in_memory = dense_region(tensor.shape, false, box, 0, item);
  const Region in_file = region_of(tensor, extent);
  for_each_run(box, in_file, in_memory, item,
               [&](std::uint64_t at, std::uint64_t from, std::uint64_t count) {
                 runs.add(at, part.data + from, count);
               });
}

}  // namespace

std::vector<PartReport> StagedWriter::write(const Comm& comm, const WriteJob& job) {
  std::vector<PartReport> reports(staged_.items().size());
  agree(comm, "save: move", [&] {
    fault_point("move");
    const File& file = open_partial(job);
    RunWriter runs(file, "move.write", job.durable, [](std::uint64_t) {});
    std::uint64_t done = 0;  // bytes of the current item
    std::optional<PartScan> scan;
    while (const StagedBlock* block = staged_.next()) {
      for (const StagedPart& part : block->parts) {
        const WriteItem& item = staged_.items()[part.item];
        const TensorEntry& tensor = job.tensors[item.tensor];
        const std::uint64_t whole = item.extent->box.elements() * item_bytes(tensor.dtype);
        write_part(runs, tensor, *item.extent, *block, part, done);
        if (done == 0) scan.emplace(tensor, *item.extent, job.statistics);
        scan->update({part.data, part.bytes});
        done += part.bytes;
        if (done != whole) continue;
        reports[part.item] = scan->report();
        done = 0;
      }
      runs.release();  // the next block may take this one's place
    }
    runs.flush();
    fault_point("move.end");
  });
  return reports;
}

}  // namespace cairn::detail
