#include "checkpoint/convert_share.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "checkpoint/convert_steps.hpp"

namespace cairn::detail {

Share share_of(std::span<const TensorEntry> tensors, int size, int rank) {
  Share share;
  if (tensors.empty()) return share;
  const std::uint64_t start = tensors.front().offset;
  const std::uint64_t stop = tensors.back().offset + tensors.back().bytes();
  const Range mine = balanced_range(stop - start, size, rank);
  const std::uint64_t begin = start + mine.start;
  const std::uint64_t end = begin + mine.count;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const TensorEntry& tensor = tensors[t];
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
    share.bytes += (last - first) * item;
    share.extents.push_back(std::move(extent));
    share.tensors.push_back(t);
  }
  return share;
}

std::vector<PartReport> copy_share(const Comm& comm, const Manifest& source, const NewTensors& file,
                                   const Share& share, const ConvertOptions& options,
                                   const std::function<void(std::uint64_t)>& progress,
                                   const std::function<void()>& make_file,
                                   const std::function<void()>& before_settle) {
  WriteJob job;
  std::optional<CopyWriter> writer;
  agree(comm, "convert: preflight", [&] {
    job.file = file.partial;
    job.nonce = file.nonce;
    job.tensors = file.tensors;
    job.crc32 = file.crc32;
    job.durable = options.durable;
    std::vector<std::size_t> sources;
    for (std::size_t i = 0; i < share.extents.size(); ++i) {
      job.items.push_back({share.tensors[i], &share.extents[i], nullptr});
      sources.push_back(file.sources[share.tensors[i]]);
    }
    job.progress = progress;
    writer.emplace(source, std::move(sources), window_bytes(options));
    if (comm.is_root()) make_file();
  });
  std::vector<PartReport> reports = writer->write(comm, job);
  before_settle();
  writer->settle(comm, options.durable);
  return reports;
}

}  // namespace cairn::detail
