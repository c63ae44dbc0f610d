#pragma once

#include <hdf5.h>

#include <filesystem>
#include <mutex>
#include <string>
#include <utility>

#include "base/throw.hpp"
#include "cairn/dtype.hpp"
#include "cairn/placement.hpp"

namespace cairn::detail::h5 {

/// Everything that calls HDF5 holds one of these: the library is not thread-safe here, and its own
/// error printing is switched off (and restored) so that a failure is told once, by the Error.
class Session {
 public:
  Session();
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

 private:
  std::unique_lock<std::recursive_mutex> lock_;
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

/// Throws Error(code) with the HDF5 error stack's innermost reason.
[[noreturn]] void fail_hdf5(Errc code, const std::string& what);

/// An identifier whose close is local. Files opened in parallel are not among them.
template <herr_t (*Close)(hid_t)>
class Id {
 public:
  Id(hid_t id, const std::string& what, Errc code = Errc::internal) : id_(id) {
    if (id_ < 0) fail_hdf5(code, what);
  }
  ~Id() {
    if (id_ >= 0) Close(id_);
  }
  Id(Id&& other) noexcept : id_(std::exchange(other.id_, -1)) {}
  Id& operator=(Id&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }
  Id(const Id&) = delete;
  Id& operator=(const Id&) = delete;

  hid_t get() const noexcept { return id_; }
  hid_t release() noexcept { return std::exchange(id_, -1); }
  /// Closes and reports failure.
  void close(const std::string& what, Errc code = Errc::io) {
    if (Close(std::exchange(id_, -1)) < 0) fail_hdf5(code, what);
  }

 private:
  hid_t id_ = -1;
};

using Dataset = Id<H5Dclose>;
using Group = Id<H5Gclose>;
using Space = Id<H5Sclose>;
using Type = Id<H5Tclose>;
using Plist = Id<H5Pclose>;
using Attribute = Id<H5Aclose>;
using SerialFile = Id<H5Fclose>;  // opened by one rank alone: its close is local

inline void check(herr_t status, const std::string& what, Errc code = Errc::internal) {
  if (status < 0) fail_hdf5(code, what);
}

/// Opens a file for one rank alone, to read. Errors: corrupt.
SerialFile open_serial(const std::filesystem::path& path);
/// Opens a dataset whose bytes lie in `file` itself. Errors: corrupt; unsafe when a link, external
/// storage or a virtual dataset leads to another file.
Dataset open_dataset(hid_t file, const std::string& name);

/// A box of a dataset, and as many elements of memory in dense row-major order.
struct Selection {
  Space in_file;
  Space in_memory;
};
/// Errors: internal.
Selection select_box(const Dataset& dataset, const Box& box);
/// Errors: internal.
Selection select_nothing(const Dataset& dataset);

/// The type of a dataset of `dtype`: little-endian; f16 and bf16 are custom floats, bool is the
/// enum {FALSE, TRUE} over i8 as h5py writes it, complex is a compound {r, i} ({real, imag} for
/// c32), FP8 is u8 (tagged with an attribute). docs/format.md lists them.
Type file_type(DType dtype);
/// Whether the dtype needs the attribute `cairn_dtype` to be told apart from its storage type.
bool needs_tag(DType dtype);
/// A UTF-8 string type of `bytes`, padded with NUL.
Type text_type(std::uint64_t bytes);

}  // namespace cairn::detail::h5
