#include "formats/hdf5/layout.hpp"

#include <algorithm>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "plan/chunks.hpp"
#include "plan/region.hpp"

namespace cairn::detail {

std::uint64_t ContainerLayout::bytes_to_reserve() const {
  // Of HDF5's entry for a chunk; an eighth for chunks that several transfers write, each anew.
  constexpr std::uint64_t kPerChunk = 256;
  constexpr std::uint64_t kPerTensor = 64 << 10;
  std::uint64_t bytes = file_bytes();
  for (const TensorEntry& tensor : tensors) {
    if (tensor.filters == 0 || file_of(tensor) != 0) continue;
    const std::uint64_t chunks = chunk_count(tensor);
    const std::uint64_t whole = chunks * element_count(tensor.chunk) * item_bytes(tensor.dtype);
    bytes += whole + whole / 8 + chunks * kPerChunk + kPerTensor;
  }
  return bytes;
}

Template take_metadata(const File& file, const ContainerLayout& layout, std::uint64_t end) {
  Template out;
  Digester digester;
  for (const Span& span : metadata_spans(data_spans(tensor_runs(layout.tensors), layout.index,
                                                    layout.documents, layout.commit_offset),
                                         end)) {
    std::vector<std::byte> bytes(span.bytes);
    file.read_at(span.offset, bytes);
    digester.update(bytes);
    out.pieces.emplace_back(span.offset, std::move(bytes));
  }
  out.digest = digester.value();
  return out;
}

std::uint64_t document_room(std::uint64_t bytes) {
  std::uint64_t room = 4096;
  while (room < bytes) room *= 2;
  return room;
}

std::vector<Span> metadata_spans(std::vector<Span> data, std::uint64_t end) {
  std::sort(data.begin(), data.end(),
            [](const Span& a, const Span& b) { return a.offset < b.offset; });
  std::vector<Span> gaps;
  std::uint64_t at = 0;
  for (const Span& span : data) {
    if (span.offset < at || span.bytes > end || span.offset > end - span.bytes) {
      fail(Errc::corrupt,
           "the index places data at bytes {}+{}, over other data or past the end {}", span.offset,
           span.bytes, end);
    }
    if (span.offset > at) gaps.push_back({at, span.offset - at});
    at = span.offset + span.bytes;
  }
  if (end > at) gaps.push_back({at, end - at});
  return gaps;
}

namespace {

/// Adds a run; small tensors lie in long ones.
void add_run(std::vector<Span>& runs, std::uint64_t offset, std::uint64_t bytes) {
  if (bytes == 0) return;
  if (!runs.empty() && offset > runs.back().offset &&
      runs.back().offset + runs.back().bytes == offset) {
    runs.back().bytes += bytes;
  } else {
    runs.push_back({offset, bytes});
  }
}

void add_extents(std::vector<Span>& runs, const TensorEntry& tensor) {
  for (const Extent& extent : tensor.extents) {
    add_run(runs, extent.offset, extent.box.elements() * item_bytes(tensor.dtype));
  }
}

void add_tensor(std::vector<Span>& runs, const TensorEntry& tensor) {
  if (tensor.layout == Layout::contiguous) {
    add_run(runs, tensor.offset, tensor.bytes());
  } else if (tensor.filters == 0) {
    add_extents(runs, tensor);
  } else {
    for (const StoredChunk& chunk : tensor.stored) add_run(runs, chunk.offset, chunk.bytes);
  }
}

}  // namespace

std::vector<Span> tensor_runs(std::span<const TensorEntry> tensors) {
  std::vector<Span> runs;
  for (const TensorEntry& tensor : tensors) {
    if (file_of(tensor) == 0) add_tensor(runs, tensor);
  }
  return runs;
}

std::vector<Span> tensor_runs(const TensorTable& tensors) {
  std::vector<Span> runs;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const TensorHead head = tensors.head(t);
    if (head.file != 0) continue;
    if (head.layout == Layout::contiguous) {
      add_run(runs, head.offset,
              element_count(Shape(head.shape.begin(), head.shape.end())) * item_bytes(head.dtype));
    } else {
      add_tensor(runs, tensors[t]);
    }
  }
  return runs;
}

std::vector<Span> data_spans(std::vector<Span> tensors, const Span& index,
                             const std::map<std::string, DocumentSlot>& documents,
                             std::uint64_t commit_offset) {
  std::vector<Span> spans = std::move(tensors);
  spans.push_back(index);
  for (const auto& [name, slot] : documents) spans.push_back(slot.span);
  spans.push_back({commit_offset, kCommitBytes});
  return spans;
}

}  // namespace cairn::detail
