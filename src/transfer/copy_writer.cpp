#include "transfer/copy_writer.hpp"

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "base/crc32.hpp"
#include "base/throw.hpp"
#include "os/fault.hpp"
#include "os/file.hpp"
#include "plan/region.hpp"
#include "plan/slices.hpp"
#include "transfer/cast.hpp"
#include "transfer/read_back.hpp"
#include "transfer/reader.hpp"
#include "transfer/runs.hpp"

namespace cairn::detail {

/// A box of an item, the next of its dense bytes.
struct CopyWriter::Part {
  std::size_t item = 0;
  Box box;
  std::uint64_t elements = 0;
  std::byte* data = nullptr;  // in the window, as it is to be written
};

/// Parts that are read, converted and written together.
struct CopyWriter::Window {
  std::vector<Part> parts;
  std::vector<std::byte> bytes;   // of all parts
  std::vector<std::byte> stored;  // of those that are converted, as the source has them
};

CopyWriter::CopyWriter(const Manifest& manifest, std::vector<std::size_t> sources,
                       std::uint64_t window_bytes)
    : manifest_(manifest), sources_(std::move(sources)), window_bytes_(window_bytes) {}

/// Reads the parts of a window into it.
void CopyWriter::fill(const WriteJob& job, Window& window, Reader& reader) const {
  const auto source_of = [&](const Part& part) -> const TensorEntry& {
    return manifest_.tensors[sources_[part.item]];
  };
  const auto target_of = [&](const Part& part) -> const TensorEntry& {
    return job.tensors[job.items[part.item].tensor];
  };
  std::uint64_t bytes = 0;
  std::uint64_t stored = 0;
  for (const Part& part : window.parts) {
    bytes += part.elements * item_bytes(target_of(part).dtype);
    if (source_of(part).dtype != target_of(part).dtype) {
      stored += part.elements * item_bytes(source_of(part).dtype);
    }
  }
  window.bytes.resize(bytes);
  window.stored.resize(stored);
  std::byte* to = window.bytes.data();
  std::byte* from = window.stored.data();
  for (Part& part : window.parts) {
    const TensorEntry& source = source_of(part);
    part.data = to;
    to += part.elements * item_bytes(target_of(part).dtype);
    const bool converts = source.dtype != target_of(part).dtype;
    reader.add(source, Placement::block(source.shape, part.box), converts ? from : part.data);
    if (converts) from += part.elements * item_bytes(source.dtype);
  }
  reader.flush();
  from = window.stored.data();
  for (const Part& part : window.parts) {
    const TensorEntry& source = source_of(part);
    if (source.dtype == target_of(part).dtype) continue;
    cast_elements(source.dtype, from, target_of(part).dtype, part.data, part.elements);
    from += part.elements * item_bytes(source.dtype);
  }
}

/// All items, cut so that each part fits a window.
std::vector<CopyWriter::Part> CopyWriter::parts_of(const WriteJob& job) const {
  std::vector<Part> parts;
  for (std::size_t i = 0; i < job.items.size(); ++i) {
    const TensorEntry& target = job.tensors[job.items[i].tensor];
    const std::uint64_t item =
        std::max(item_bytes(target.dtype), item_bytes(manifest_.tensors[sources_[i]].dtype));
    for (const Box& box : region_of(target, *job.items[i].extent).boxes) {
      for (Box& slice : slices_of(box, window_bytes_ / item)) {
        const std::uint64_t elements = slice.elements();
        parts.push_back({i, std::move(slice), elements, nullptr});
      }
    }
  }
  return parts;
}

namespace {

/// Takes the bytes of the items in order: to the file, and to the reports.
class Sink {
 public:
  Sink(const WriteJob& job, const File& file, std::vector<PartReport>& reports)
      // Through the page cache, durable or not: everything is read back soon.
      : job_(job),
        reports_(reports),
        runs_(file, "move.write", WriteBack::later, [this](std::uint64_t bytes) {
          written_ += bytes;
          if (job_.progress) job_.progress(written_);
        }) {}

  void add(std::size_t i, const Box& box, const std::byte* data, std::uint64_t elements) {
    const WriteItem& item = job_.items[i];
    const TensorEntry& tensor = job_.tensors[item.tensor];
    const std::uint64_t unit = item_bytes(tensor.dtype);
    if (done_ == 0) {
      scan_.emplace(tensor, *item.extent, job_.statistics);
      crc_ = 0;
    }
    add_part(runs_, tensor, *item.extent, box, {data, elements * unit}, done_);
    scan_->update({data, elements * unit});
    if (job_.crc32) crc_ = crc32_update(crc_, {data, elements * unit});
    done_ += elements * unit;
    if (done_ != item.extent->box.elements() * unit) return;
    reports_[i] = scan_->report();
    reports_[i].crc32 = crc_;
    done_ = 0;
  }
  void flush() { runs_.flush(); }

 private:
  const WriteJob& job_;
  std::vector<PartReport>& reports_;
  RunWriter runs_;
  std::uint64_t written_ = 0;
  std::uint64_t done_ = 0;  // bytes of the current item
  std::optional<PartScan> scan_;
  std::uint32_t crc_ = 0;
};

}  // namespace

void CopyWriter::copy(const WriteJob& job, const File& file, std::vector<PartReport>& reports) {
  Reader reader(manifest_);
  Sink sink(job, file, reports);
  Window window;
  std::uint64_t used = 0;
  const auto write_window = [&] {
    fill(job, window, reader);
    for (const Part& part : window.parts) sink.add(part.item, part.box, part.data, part.elements);
    sink.flush();
    if (write_back_) write_back_->more();
    window.parts.clear();
    used = 0;
  };
  for (Part& part : parts_of(job)) {
    const std::uint64_t bytes =
        part.elements * std::max(item_bytes(job.tensors[job.items[part.item].tensor].dtype),
                                 item_bytes(manifest_.tensors[sources_[part.item]].dtype));
    if (used + bytes > window_bytes_ && used != 0) write_window();
    used += bytes;
    window.parts.push_back(std::move(part));
  }
  write_window();
}

void CopyWriter::abandon() noexcept {
  write_back_.reset();
  Writer::abandon();
}

std::vector<PartReport> CopyWriter::write(const Comm& comm, const WriteJob& job) {
  std::vector<PartReport> reports(job.items.size());
  const File* file = nullptr;
  agree(comm, "convert: move", [&] {
    fault_point("move");
    file = &open_partial(job);
    if (job.durable) write_back_.emplace(job.file);
    copy(job, *file, reports);
    fault_point("move.end");
  });
  agree(comm, "convert: read back",
        [&] { check_read_back(job, *file, reports, "the system", "look at its disk"); });
  return reports;
}

}  // namespace cairn::detail
