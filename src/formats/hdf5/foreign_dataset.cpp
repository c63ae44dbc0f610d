#include "formats/hdf5/foreign_dataset.hpp"

#include <algorithm>
#include <span>
#include <utility>

#include "plan/chunks.hpp"

namespace cairn::detail {
namespace {

// HDF5 takes about 1 KiB for each chunk of a read.
constexpr std::uint64_t kMostChunksAtOnce = 4096;
constexpr std::size_t kMostRemembered = 64 << 10;
constexpr std::uint64_t kChecksumBytes = 4;  // behind what fletcher32 was applied to

}  // namespace

ForeignDataset::ForeignDataset(hid_t file, const std::string& name, std::string what)
    : what_(std::move(what)), dataset_(h5::open_dataset(file, name)) {
  const h5::Type type(H5Dget_type(id()), what_, Errc::corrupt);
  const h5::Space space(H5Dget_space(id()), what_, Errc::corrupt);
  item_ = H5Tget_size(type.get());
  const int rank = H5Sget_simple_extent_ndims(space.get());
  if (rank < 0 || item_ == 0) h5::fail_hdf5(Errc::corrupt, what_);
  std::vector<hsize_t> dims(static_cast<std::size_t>(rank));
  h5::check(H5Sget_simple_extent_dims(space.get(), dims.data(), nullptr), what_, Errc::corrupt);
  grid_.shape = Shape(dims.begin(), dims.end());
  const h5::Plist creation(H5Dget_create_plist(id()), what_, Errc::corrupt);
  if (H5Pget_layout(creation.get()) != H5D_CHUNKED) return;
  take_filters(creation.get());
  take_chunk(creation.get());
}

void ForeignDataset::take_filters(hid_t creation) {
  const auto has = [&](H5Z_filter_t filter) {
    return std::find(filters_.begin(), filters_.end(), filter) != filters_.end();
  };
  const int count = H5Pget_nfilters(creation);
  h5::check(count, what_, Errc::corrupt);
  for (int i = 0; i < count; ++i) {
    unsigned flags = 0;
    std::size_t values = 0;
    // Without its name, for which HDF5 would load a plugin.
    const H5Z_filter_t filter = H5Pget_filter2(creation, static_cast<unsigned>(i), &flags, &values,
                                               nullptr, 0, nullptr, nullptr);
    const bool known = filter == H5Z_FILTER_SHUFFLE || filter == H5Z_FILTER_DEFLATE ||
                       filter == H5Z_FILTER_FLETCHER32;
    // What was shuffled after it was deflated can't be looked at as it is stored.
    if (!known || has(filter) || (filter == H5Z_FILTER_SHUFFLE && has(H5Z_FILTER_DEFLATE))) {
      fail(Errc::unsafe,
           "{} has HDF5 filter {} in place {}; only shuffle, deflate and fletcher32 are undone, "
           "each once and shuffle before deflate: rewrite the file without filters ('h5repack -f "
           "NONE')",
           what_, static_cast<int>(filter), i + 1);
    }
    filters_.push_back(filter);
  }
}

void ForeignDataset::take_chunk(hid_t creation) {
  std::vector<hsize_t> chunk(grid_.shape.size());
  const int rank = static_cast<int>(chunk.size());
  if (H5Pget_chunk(creation, rank, chunk.data()) != rank ||
      std::find(chunk.begin(), chunk.end(), 0) != chunk.end()) {
    fail(Errc::corrupt, "{} has chunks of another rank", what_);
  }
  grid_.chunk = Shape(chunk.begin(), chunk.end());
  // Without filters HDF5 reads what is asked for, and no whole chunks.
  if (!filters_.empty() && element_count(grid_.chunk) > kLargestChunk / item_) {
    fail(Errc::unsafe,
         "{} has chunks of more than {} MiB with filters: rewrite the file without filters "
         "('h5repack -f NONE')",
         what_, kLargestChunk >> 20);
  }
}

std::uint64_t ForeignDataset::chunks_of(const Box& box) const {
  std::uint64_t chunks = 1;
  for (std::size_t d = 0; d < grid_.chunk.size(); ++d) {
    const std::uint64_t last = box.start[d] + box.count[d] - 1;
    chunks *= last / grid_.chunk[d] - box.start[d] / grid_.chunk[d] + 1;
  }
  return chunks;
}

void ForeignDataset::check_chunk(const Box& chunk) {
  const std::vector<hsize_t> start(chunk.start.begin(), chunk.start.end());
  const std::uint64_t bytes = chunk.elements() * item_;
  hsize_t size = 0;
  h5::check(H5Dget_chunk_storage_size(id(), start.data(), &size), what_, Errc::corrupt);
  // Deflate makes nothing much longer.
  if (size == 0 || size > bytes + bytes / 64 + 1024) {
    fail(Errc::unsafe, "{} has a chunk that is stored in {} bytes instead of at most {}", what_,
         size, bytes);
  }
  std::vector<std::byte> stored(size);
  std::uint32_t skipped = 0;
  h5::check(H5Dread_chunk(id(), H5P_DEFAULT, start.data(), &skipped, stored.data()), what_,
            Errc::corrupt);
  bool deflated = false;
  std::uint64_t plain = bytes;
  std::uint64_t behind = 0;
  for (std::size_t f = 0; f < filters_.size(); ++f) {
    if ((skipped >> f & 1) != 0) continue;
    if (filters_[f] == H5Z_FILTER_DEFLATE) deflated = true;
    if (filters_[f] == H5Z_FILTER_FLETCHER32) (deflated ? behind : plain) += kChecksumBytes;
  }
  if (!deflated || size <= behind) {
    if (size == plain && !deflated) return;
    fail(Errc::corrupt, "{} has a chunk of {} bytes instead of {}", what_, size, plain);
  }
  std::vector<std::byte> inflated(plain);
  try {
    inflater_.inflate(std::span(stored).first(size - behind), inflated);
  } catch (const Error& error) {
    fail(Errc::corrupt, "{} has a chunk that does not give {} bytes: {}", what_, plain,
         error.what());
  }
}

void ForeignDataset::read(hid_t type, const Box& box, std::byte* out) {
  if (box.elements() == 0) return;
  if (chunks_of(box) > kMostChunksAtOnce) {
    // Two boxes, one behind the other in `out`, between chunks where that is possible.
    std::size_t d = 0;
    while (box.count[d] == 1) ++d;
    const std::uint64_t middle = box.start[d] + box.count[d] / 2;
    const std::uint64_t between = middle / grid_.chunk[d] * grid_.chunk[d];
    Box first = box;
    first.count[d] = (between > box.start[d] ? between : middle) - box.start[d];
    Box second = box;
    second.start[d] += first.count[d];
    second.count[d] -= first.count[d];
    read(type, first, out);
    read(type, second, out + first.elements() * item_);
    return;
  }
  if (!filters_.empty()) {
    for_each_chunk(grid_, box, [&](std::uint64_t position, const Box& chunk) {
      if (checked_.contains(position)) return;
      check_chunk(chunk);
      if (checked_.size() >= kMostRemembered) checked_.clear();
      checked_.insert(position);
    });
  }
  const h5::Selection selection = h5::select_box(dataset_, box);
  h5::check(
      H5Dread(id(), type, selection.in_memory.get(), selection.in_file.get(), H5P_DEFAULT, out),
      what_, Errc::corrupt);
}

}  // namespace cairn::detail
