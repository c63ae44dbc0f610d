#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>

#include "base/digest.hpp"
#include "formats/hdf5/h5.hpp"
#include "formats/hdf5/index.hpp"
#include "formats/hdf5/layout.hpp"
#include "manifest/names.hpp"
#include "os/fault.hpp"
#include "os/file.hpp"
#include "plan/chunks.hpp"
#include "plan/region.hpp"

namespace cairn::detail {
namespace {

using namespace h5;

// Data of at least 64 KiB starts on a 4 KiB boundary, ready for O_DIRECT; smaller data is packed.
constexpr std::uint64_t kAlignThreshold = 64 << 10;
constexpr std::uint64_t kAlignBytes = 4096;

std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

/// Rooms sized to the structure: one block of metadata, one of small data, little of either unused.
Plist file_access(const std::vector<TensorEntry>& tensors, std::uint64_t small_other) {
  // About 300 bytes of object header and 60 of link a dataset, doubled where every tensor has a
  // group.
  constexpr std::uint64_t kMetadataPerTensor = 640;
  constexpr std::uint64_t kMostMetadata = 8 << 20;
  std::uint64_t small = small_other;
  for (const TensorEntry& tensor : tensors) {
    if (tensor.bytes() < kAlignThreshold && file_of(tensor) == 0) small += tensor.bytes();
  }
  const std::uint64_t metadata = tensors.size() * kMetadataPerTensor;
  Plist access(H5Pcreate(H5P_FILE_ACCESS), "make file access properties");
  check(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V18, H5F_LIBVER_LATEST),
        "set version bounds");
  check(H5Pset_meta_block_size(access.get(), std::clamp<std::uint64_t>(round_up(metadata, 64 << 10),
                                                                       64 << 10, kMostMetadata)),
        "set the metadata block size");
  check(H5Pset_small_data_block_size(access.get(), round_up(small, kAlignBytes) + kAlignBytes),
        "set the small data block size");
  check(H5Pset_alignment(access.get(), kAlignThreshold, kAlignBytes), "set alignment");
  check(H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG), "set the close degree");
  return access;
}

Plist dataset_creation(const Shape& chunk, std::uint8_t filters = 0, unsigned deflate = 0) {
  Plist creation(H5Pcreate(H5P_DATASET_CREATE), "make dataset properties");
  check(H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_EARLY), "set allocation time");
  check(H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER), "set fill time");
  check(H5Pset_obj_track_times(creation.get(), false), "switch off times");
  if (!chunk.empty()) {
    const std::vector<hsize_t> dims(chunk.begin(), chunk.end());
    check(H5Pset_chunk(creation.get(), static_cast<int>(dims.size()), dims.data()), "set chunks");
  }
  if (filters != 0) {
    // How large a chunk becomes is known when it is written.
    check(H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_INCR), "set allocation time");
    if ((filters & kShuffled) != 0) check(H5Pset_shuffle(creation.get()), "set shuffle");
    check(H5Pset_deflate(creation.get(), deflate), "set deflate", Errc::unsupported);
  }
  return creation;
}

Space space_of(const Shape& shape) {
  if (shape.empty()) return {H5Screate(H5S_SCALAR), "make a scalar dataspace"};
  const std::vector<hsize_t> dims(shape.begin(), shape.end());
  return {H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr),
          "make a dataspace"};
}

/// Creates datasets of one file and tells where their bytes are. What neighbours have in common
/// (type, shape, group) is made once: a fifth of HDF5's instructions went there.
class Builder {
 public:
  Builder(hid_t file, unsigned deflate)
      : file_(file),
        deflate_(deflate),
        links_(H5Pcreate(H5P_LINK_CREATE), "make link properties"),
        contiguous_(dataset_creation({})) {
    check(H5Pset_create_intermediate_group(links_.get(), 1), "allow groups on the way");
    check(H5Pset_char_encoding(links_.get(), H5T_CSET_UTF8), "set the names' encoding");
  }

  Dataset create(const std::string& name, const Type& type, const Shape& shape,
                 const Plist& creation) {
    if (!space_ || shape != shape_) {
      space_.emplace(space_of(shape));
      shape_ = shape;
    }
    const auto [parent, leaf] = place_of(name);
    const hid_t dataset = H5Dcreate2(parent, leaf, type.get(), space_->get(), links_.get(),
                                     creation.get(), H5P_DEFAULT);
    if (dataset < 0) fail_hdf5(Errc::internal, fmt::format("create dataset '{}'", name));
    return {dataset, {}};
  }

  void add_tensor(TensorEntry& tensor) {
    const bool chunked = tensor.layout == Layout::chunked;
    const Type& type = type_of(tensor.dtype);
    const Dataset dataset = chunked
                                ? create(tensor.name, type, tensor.shape,
                                         dataset_creation(tensor.chunk, tensor.filters, deflate_))
                                : create(tensor.name, type, tensor.shape, contiguous_);
    if (needs_tag(tensor.dtype)) tag(dataset, to_string(tensor.dtype));
    if (tensor.bytes() == 0 || tensor.filters != 0) return;
    if (chunked) return locate_chunks(dataset, tensor);
    tensor.offset = offset_of(dataset, tensor.name);
    for (Extent& extent : tensor.extents) extent.offset = offset_in_rows(tensor, extent);
  }

  /// A tensor that lies in another file, under the same name.
  void add_link(const std::string& name, const std::string& file) {
    check(H5Lcreate_external(file.c_str(), ("/" + name).c_str(), file_, name.c_str(), links_.get(),
                             H5P_DEFAULT),
          fmt::format("create external link '{}'", name));
  }

  /// A dataset of `bytes` bytes of text or of plain bytes.
  Span add_room(const std::string& name, std::uint64_t bytes, bool text) {
    const Dataset dataset = text ? create(name, text_type(bytes), {}, contiguous_)
                                 : create(name, file_type(DType::u8), {bytes}, contiguous_);
    return {offset_of(dataset, name), bytes};
  }

 private:
  const Type& type_of(DType dtype) {
    const auto known = types_.find(dtype);
    if (known != types_.end()) return known->second;
    return types_.emplace(dtype, file_type(dtype)).first->second;
  }

  /// Where to create a dataset, and under which name: in its group, if the last one was there, too.
  std::pair<hid_t, const char*> place_of(const std::string& name) {
    const std::size_t slash = name.rfind('/');
    if (slash == std::string::npos) return {file_, name.c_str()};
    const std::string_view parent = std::string_view(name).substr(0, slash);
    if (parent != parent_) {
      parent_ = parent;
      group_.reset();
      return {file_, name.c_str()};
    }
    if (!group_) group_.emplace(H5Gopen2(file_, parent_.c_str(), H5P_DEFAULT), "open a group");
    return {group_->get(), name.c_str() + slash + 1};
  }

  static void tag(const Dataset& dataset, std::string_view text) {
    const Type type = text_type(text.size());
    const Space space = space_of({});
    const Attribute attribute(
        H5Acreate2(dataset.get(), "cairn_dtype", type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT),
        "create attribute 'cairn_dtype'");
    check(H5Awrite(attribute.get(), type.get(), text.data()), "write attribute 'cairn_dtype'");
  }

  static std::uint64_t offset_of(const Dataset& dataset, const std::string& name) {
    const haddr_t offset = H5Dget_offset(dataset.get());
    if (offset == HADDR_UNDEF) fail(Errc::internal, "HDF5 did not allocate dataset '{}'", name);
    return offset;
  }

  /// Extents are chunks or, where several ranks share a chunk, runs of its dense bytes.
  static void locate_chunks(const Dataset& dataset, TensorEntry& tensor) {
    const std::uint64_t item = item_bytes(tensor.dtype);
    const Shape strides = row_major_strides(tensor.chunk, item);
    const std::uint64_t chunk_bytes = element_count(tensor.chunk) * item;
    std::vector<hsize_t> chunk_start(tensor.shape.size());
    haddr_t chunk_offset = HADDR_UNDEF;
    for (Extent& extent : tensor.extents) {
      std::uint64_t within = 0;
      bool same_chunk = chunk_offset != HADDR_UNDEF;
      for (std::size_t d = 0; d < chunk_start.size(); ++d) {
        const std::uint64_t offset = extent.box.start[d] % tensor.chunk[d];
        within += offset * strides[d];
        const hsize_t start = extent.box.start[d] - offset;
        same_chunk = same_chunk && chunk_start[d] == start;
        chunk_start[d] = start;
      }
      if (!same_chunk) {
        hsize_t bytes = 0;
        unsigned filters = 0;
        check(H5Dget_chunk_info_by_coord(dataset.get(), chunk_start.data(), &filters, &chunk_offset,
                                         &bytes),
              "locate a chunk");
        if (chunk_offset == HADDR_UNDEF || bytes != chunk_bytes) {
          fail(Errc::internal, "HDF5 did not allocate the chunks of dataset '{}'", tensor.name);
        }
      }
      extent.offset = chunk_offset + within;
    }
  }

  hid_t file_;
  unsigned deflate_;
  Plist links_;
  Plist contiguous_;
  std::map<DType, Type> types_;
  std::optional<Space> space_;  // of the last dataset
  Shape shape_;
  std::optional<Group> group_;  // of the last two datasets
  std::string parent_;
};

/// Large data in the order of the table; then small data, which HDF5 packs in the order in which it
/// is created: that of each writer together, so that its writes join to large requests.
std::vector<std::size_t> creation_order(const std::vector<TensorEntry>& tensors) {
  const auto writer_of = [&](std::size_t t) {
    const TensorEntry& tensor = tensors[t];
    return tensor.extents.empty() || tensor.bytes() >= kAlignThreshold
               ? -1
               : tensor.extents.front().writer;
  };
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return writer_of(a) < writer_of(b); });
  return order;
}

/// Opens a file and takes its name away, so that nothing is left behind if this process is killed.
File open_nameless(const std::filesystem::path& path) {
  try {
    fault_point("layout.skeleton");
    File file = File::open_read(path);
    remove_quietly(path);
    return file;
  } catch (...) {
    remove_quietly(path);
    throw;
  }
}

void locate_chunks_of(hid_t file, TensorEntry& tensor) {
  const Dataset dataset = open_dataset(file, tensor.name);
  tensor.stored.clear();
  for_each_chunk(tensor, Box::whole(tensor.shape), [&](std::uint64_t, const Box& chunk) {
    const std::vector<hsize_t> start(chunk.start.begin(), chunk.start.end());
    haddr_t offset = HADDR_UNDEF;
    hsize_t bytes = 0;
    unsigned skipped = 0;
    check(H5Dget_chunk_info_by_coord(dataset.get(), start.data(), &skipped, &offset, &bytes),
          "locate a chunk");
    if (offset == HADDR_UNDEF) {
      fail(Errc::io, "HDF5 has not written all chunks of dataset '{}'", tensor.name);
    }
    tensor.stored.push_back({offset, static_cast<std::uint32_t>(bytes), skipped});
  });
}

}  // namespace

std::uint64_t locate_stored(const std::filesystem::path& path, std::vector<TensorEntry>& tensors) {
  const Session session;
  SerialFile file = open_serial(path);
  for (TensorEntry& tensor : tensors) {
    if (tensor.filters != 0 && file_of(tensor) == 0) locate_chunks_of(file.get(), tensor);
  }
  haddr_t end = 0;
  check(H5Fget_eoa(file.get(), &end), "find the end of the file");
  file.close(fmt::format("close '{}'", path.string()));
  return end;
}

std::pair<ContainerLayout, Template> build_skeleton(
    const std::filesystem::path& skeleton, std::vector<TensorEntry> tensors,
    std::vector<ReferencedFile> files, const std::map<std::string, std::uint64_t>& rooms,
    unsigned deflate) {
  const Session session;
  ContainerLayout layout;
  layout.tensors = std::move(tensors);
  layout.files = std::move(files);
  std::uint64_t small_other = kCommitBytes;
  for (const auto& [name, room] : rooms) small_other += room;

  SerialFile file(H5Fcreate(skeleton.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT,
                            file_access(layout.tensors, small_other).get()),
                  fmt::format("create '{}'", skeleton.string()), Errc::io);
  const File bytes = open_nameless(skeleton);

  std::optional<Builder> builder(std::in_place, file.get(), deflate);
  for (const std::size_t t : creation_order(layout.tensors)) {
    TensorEntry& tensor = layout.tensors[t];
    if (const std::uint32_t number = file_of(tensor); number != 0) {
      builder->add_link(tensor.name, layout.files.at(number - 1).name);
    } else {
      builder->add_tensor(tensor);
    }
  }
  for (const auto& [name, room] : rooms) {
    layout.documents[name].span = builder->add_room(names::document(name), room, /*text=*/true);
  }
  layout.index = builder->add_room(std::string(names::kIndex),
                                   index_bytes(layout.tensors, layout.files), false);
  layout.commit_offset = builder->add_room(std::string(names::kCommit), kCommitBytes, true).offset;
  builder.reset();  // what it holds open must go before the file
  file.close(fmt::format("close '{}'", skeleton.string()));
  H5garbage_collect();  // the memory of its metadata cache; no failure matters

  layout.hdf5_bytes = bytes.size();
  Template metadata = take_metadata(bytes, layout, layout.hdf5_bytes);
  return {std::move(layout), std::move(metadata)};
}

}  // namespace cairn::detail
