#include "transfer/reader.hpp"

#include <cstring>
#include <map>
#include <optional>

#include "base/throw.hpp"
#include "formats/hdf5/dataset_reader.hpp"
#include "os/file.hpp"
#include "plan/chunks.hpp"
#include "plan/part_digest.hpp"
#include "plan/region.hpp"
#include "plan/slices.hpp"
#include "transfer/runs.hpp"
#include "transfer/stored_chunks.hpp"

namespace cairn::detail {

struct Reader::Impl {
  explicit Impl(const Manifest& m) : manifest(m) {}

  struct Source {
    File file;
    RunReader runs;
    explicit Source(const FileEntry& entry) : file(open_same(entry)), runs(file) {}
  };

  const Manifest& manifest;
  std::map<std::uint32_t, Source> sources;
  StoredChunks chunks;
  std::optional<DatasetReader> datasets;
  std::uint64_t bytes_before = 0;  // of files that are closed again
  std::uint64_t dataset_bytes = 0;

  Source& source_of(std::uint32_t index) {
    const auto known = sources.find(index);
    if (known != sources.end()) return known->second;
    // Checkpoints of other programs may have a file for each of thousands of ranks.
    constexpr std::size_t kMostOpen = 256;
    if (sources.size() >= kMostOpen) {
      for (auto& [number, source] : sources) {
        source.runs.flush();
        bytes_before += source.runs.bytes_read();
      }
      sources.clear();
    }
    return sources.try_emplace(index, manifest.files.at(index)).first->second;
  }
  RunReader& runs_of(std::uint32_t index) { return source_of(index).runs; }

  /// The parts of `piece` that lie in one region of the file; tells how many elements those are.
  std::uint64_t add_region(std::uint32_t file, const Region& in_file, const Region& in_memory,
                           std::uint64_t item, std::byte* out, bool strided = false) {
    RunReader& runs = runs_of(file);
    const auto add = [&](std::uint64_t at, std::uint64_t to, std::uint64_t bytes) {
      runs.add(at, out + to, bytes);
    };
    std::uint64_t elements = 0;
    for (const Box& stored : in_file.boxes) {
      for (const Box& wanted : in_memory.boxes) {
        auto common = intersect(stored, wanted);
        if (!common) continue;
        elements += common->elements();
        if (!strided) {
          for_each_run(*common, in_file, in_memory, item, add);
          continue;
        }
        // In the order of the file: a transposed matrix would be read once for each of its rows.
        Region from{{}, in_file.base, in_file.strides};
        Region to{{}, in_memory.base, in_memory.strides};
        order_by_strides(*common, from, to);
        for_each_run(*common, from, to, item, add);
      }
    }
    return elements;
  }

  void add_extents(const TensorEntry& tensor, const Placement& piece, std::byte* out) {
    const std::uint64_t item = item_bytes(tensor.dtype);
    const bool contiguous = tensor.layout == Layout::contiguous && !tensor.extents.empty();
    if (const auto start = contiguous ? first_of_run(piece) : std::nullopt) {
      runs_of(tensor.extents.front().file)
          .add(tensor.offset + *start * item, out, piece.elements() * item);
      return;
    }
    const Region in_memory = region_of(piece, item);
    std::uint64_t elements = 0;
    if (contiguous) {
      // One row-major run, however many extents tell who wrote which part of it.
      const Region whole =
          dense_region(tensor.shape, false, Box::whole(tensor.shape), tensor.offset, item);
      elements = add_region(tensor.extents.front().file, whole, in_memory, item, out);
    } else {
      for (const Extent& extent : tensor.extents) {
        elements += add_region(extent.file, region_of(tensor, extent), in_memory, item, out,
                               tensor.layout == Layout::strided);
      }
    }
    if (elements != piece.elements()) {
      fail(Errc::corrupt, "tensor '{}' of '{}': {} of the {} wanted elements are in the file",
           tensor.name, manifest.path().string(), elements, piece.elements());
    }
  }

  /// Tensors with filters: chunk by chunk, at once.
  void copy_chunks(const TensorEntry& tensor, const Placement& piece, std::byte* out) {
    const std::uint64_t item = item_bytes(tensor.dtype);
    const Region in_memory = region_of(piece, item);
    const std::uint32_t number = tensor.extents.at(0).file;
    const File& file = source_of(number).file;
    for (const Box& wanted : in_memory.boxes) {
      for_each_chunk(tensor, wanted, [&](std::uint64_t position, const Box& chunk) {
        const auto& bytes = chunks.read(file, number, tensor, position);
        for_each_run(*intersect(wanted, chunk), dense_region(tensor.shape, false, chunk, 0, item),
                     in_memory, item, [&](std::uint64_t at, std::uint64_t to, std::uint64_t count) {
                       std::memcpy(out + to, bytes.data() + at, count);
                     });
      });
    }
  }

  void read_datasets(const TensorEntry& tensor, const Placement& piece, std::byte* out) {
    if (!datasets) {
      open_same(manifest.files.at(0));
      datasets.emplace(manifest.path());
    }
    // The boxes of a piece lie one behind the other in its dense bytes.
    for (const Box& box : region_of(piece, item_bytes(tensor.dtype)).boxes) {
      datasets->read(tensor, box, out);
      const std::uint64_t bytes = box.elements() * item_bytes(tensor.dtype);
      dataset_bytes += bytes;
      out += bytes;
    }
  }
};

File open_same(const FileEntry& entry) {
  File file = File::open_read(entry.path);
  const std::uint64_t bytes = file.size();
  if (bytes != entry.bytes || file.fingerprint() != entry.fingerprint) {
    fail(
        Errc::mismatch,
        "'{}' is not the file that the checkpoint was opened as ({} bytes instead of {}, or "
        "another "
        "content): use a path that leads to the same file on every node, and replace no checkpoint "
        "while it is read",
        entry.path.string(), bytes, entry.bytes);
  }
  return file;
}

Reader::Reader(const Manifest& manifest) : impl_(std::make_unique<Impl>(manifest)) {}
Reader::~Reader() = default;

void Reader::add(const TensorEntry& tensor, const Placement& piece, std::byte* out) {
  if (piece.elements() == 0) return;
  if (impl_->manifest.files.at(file_of(tensor)).access == Access::hdf5) {
    impl_->read_datasets(tensor, piece, out);
  } else if (tensor.filters != 0) {
    impl_->copy_chunks(tensor, piece, out);
  } else {
    impl_->add_extents(tensor, piece, out);
  }
}

void Reader::add_run(std::uint32_t file, std::uint64_t offset, std::byte* out,
                     std::uint64_t bytes) {
  impl_->runs_of(file).add(offset, out, bytes);
}

void Reader::flush() {
  for (auto& [index, source] : impl_->sources) source.runs.flush();
}

std::uint64_t Reader::bytes_read() const {
  std::uint64_t bytes = impl_->bytes_before + impl_->dataset_bytes + impl_->chunks.bytes_read();
  for (const auto& [index, source] : impl_->sources) bytes += source.runs.bytes_read();
  return bytes;
}

void Reader::read(const TensorEntry& tensor, const Placement& piece, std::byte* out) {
  add(tensor, piece, out);
  flush();
}

std::uint64_t digest_in_file(Reader& reader, const TensorEntry& tensor, const Extent& extent) {
  constexpr std::uint64_t kWindowBytes = 4 << 20;
  const std::uint64_t item = item_bytes(tensor.dtype);
  PartDigester digester(tensor, extent);
  std::vector<std::byte> window;
  for (const Box& box : region_of(tensor, extent).boxes) {
    for (const Box& slice : slices_of(box, kWindowBytes / item)) {
      window.resize(slice.elements() * item);
      reader.read(tensor, Placement::block(tensor.shape, slice), window.data());
      digester.update(window);
    }
  }
  return digester.value();
}

}  // namespace cairn::detail
