#include "limits.hpp"

#include <hdf5.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

#include "base/throw.hpp"
#include "os/file.hpp"

namespace cairn::bench {
namespace {

namespace fs = std::filesystem;
using detail::File;

constexpr std::uint64_t kBlock = 4096;
constexpr std::uint64_t kRequestBytes = 8 << 20;

void create_on_root(const Comm& comm, const fs::path& path) {
  agree(comm, "limit: create", [&] {
    if (comm.is_root()) File::create(path).close();
  });
}

void check(std::int64_t result, const char* what) {
  if (result < 0) detail::fail(Errc::io, "HDF5 cannot {}", what);
}

/// The settings of docs/design.md, with rooms that fit any of the payloads.
hid_t file_access() {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  check(access, "make properties");
  check(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST), "set version bounds");
  check(H5Pset_meta_block_size(access, 8 << 20), "set the metadata block size");
  check(H5Pset_small_data_block_size(access, 64 << 20), "set the small data block size");
  check(H5Pset_alignment(access, 64 << 10, kBlock), "set alignment");
  return access;
}

hid_t dataset_creation() {
  const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
  check(creation, "make properties");
  check(H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY), "set allocation time");
  check(H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER), "set fill time");
  check(H5Pset_obj_track_times(creation, false), "switch off times");
  return creation;
}

}  // namespace

std::uint64_t raw_offset(const Comm& comm, std::uint64_t my_bytes) {
  const std::uint64_t mine[1] = {my_bytes};
  return comm.exclusive_sum(mine).front();
}

void write_raw(const Comm& comm, std::span<const MutableTensorView> pieces, const fs::path& path,
               std::uint64_t offset, bool durable) {
  create_on_root(comm, path);
  agree(comm, "limit: write", [&] {
    File file = File::open_write(path);
    for (const MutableTensorView& piece : pieces) {
      file.write_at(offset, {piece.data, piece.bytes()}, "bench.write");
      offset += piece.bytes();
    }
    if (durable) file.sync();
    file.close();
  });
}

void write_past_cache(const Comm& comm, std::uint64_t bytes, const fs::path& path,
                      std::uint64_t offset) {
  create_on_root(comm, path);
  agree(comm, "limit: write", [&] {
    const std::unique_ptr<std::byte, decltype(&std::free)> buffer(
        static_cast<std::byte*>(std::aligned_alloc(kBlock, kRequestBytes)), &std::free);
    std::memset(buffer.get(), 1, kRequestBytes);
    File file = File::open_write(path);
    const std::optional<File> direct = file.reopen_past_cache();
    const File& target = direct ? *direct : file;
    offset = offset / kBlock * kBlock;
    for (std::uint64_t at = 0; at < bytes; at += kRequestBytes) {
      const std::uint64_t count =
          std::min(kRequestBytes, bytes - at + kBlock - 1) / kBlock * kBlock;
      target.write_at(offset + at, {buffer.get(), count}, "bench.write");
    }
    file.sync();
    file.close();
  });
}

void write_packed(const Comm& comm, std::span<const std::byte> packed, const fs::path& path,
                  std::uint64_t offset) {
  create_on_root(comm, path);
  agree(comm, "limit: write", [&] {
    File file = File::open_write(path);
    file.write_at(offset, packed, "bench.write");
    file.close();
  });
}

void read_raw(const Comm& comm, std::span<const MutableTensorView> pieces, const fs::path& path,
              std::uint64_t offset) {
  agree(comm, "limit: read", [&] {
    const File file = File::open_read(path);
    for (const MutableTensorView& piece : pieces) {
      file.read_at(offset, {piece.data, piece.bytes()});
      offset += piece.bytes();
    }
  });
}

void copy_raw(std::span<const MutableTensorView> pieces, std::span<std::byte> to) {
  for (const MutableTensorView& piece : pieces) {
    std::memcpy(to.data(), piece.data, piece.bytes());
    to = to.subspan(piece.bytes());
  }
}

void create_datasets(const Comm& comm, const Manifest& manifest, const fs::path& path) {
  agree(comm, "limit: create datasets", [&] {
    if (!comm.is_root()) return;
    const hid_t access = file_access();
    const hid_t creation = dataset_creation();
    const hid_t links = H5Pcreate(H5P_LINK_CREATE);
    check(H5Pset_create_intermediate_group(links, 1), "allow groups on the way");
    const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access);
    check(file, "create the file");
    for (std::size_t t = 0; t < manifest.tensors.size(); ++t) {
      const TensorHead tensor = manifest.tensors.head(t);
      const std::vector<hsize_t> dims(tensor.shape.begin(), tensor.shape.end());
      const hid_t space = H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
      const hid_t dataset = H5Dcreate2(file, std::string(tensor.name).c_str(), H5T_IEEE_F32LE,
                                       space, links, creation, H5P_DEFAULT);
      check(dataset, "create a dataset");
      check(H5Dclose(dataset), "close a dataset");
      check(H5Sclose(space), "close a dataspace");
    }
    check(H5Fclose(file), "close the file");
    for (const hid_t list : {access, creation, links}) H5Pclose(list);
  });
}

}  // namespace cairn::bench
