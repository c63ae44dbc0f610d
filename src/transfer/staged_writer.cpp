#include <optional>
#include <utility>

#include "base/throw.hpp"
#include "os/fault.hpp"
#include "os/file.hpp"
#include "transfer/runs.hpp"
#include "transfer/staging.hpp"

namespace cairn::detail {

std::vector<PartReport> StagedWriter::write(const Comm& comm, const WriteJob& job) {
  std::vector<PartReport> reports(staged_.items().size());
  agree(comm, "save: move", [&] {
    fault_point("move");
    const File& file = open_partial(job);
    const WriteBack write_back = job.durable ? WriteBack::past_cache : WriteBack::later;
    RunWriter runs(file, "move.write", write_back, [](std::uint64_t) {});
    std::uint64_t done = 0;  // bytes of the current item
    std::optional<PartScan> scan;
    while (const StagedBlock* block = staged_.next()) {
      for (const StagedPart& part : block->parts) {
        const WriteItem& item = staged_.items()[part.item];
        const TensorEntry& tensor = job.tensors[item.tensor];
        const std::uint64_t whole = item.extent->box.elements() * item_bytes(tensor.dtype);
        const Box& box = block->boxes.empty() ? item.extent->box : block->boxes[part.box];
        add_part(runs, tensor, *item.extent, box, {part.data, part.bytes}, done);
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
