#include "formats/hdf5/h5.hpp"

#include <vector>

namespace cairn::detail::h5 {
namespace {

/// HDF5's number for the open file that an object lies in.
unsigned long file_number(hid_t object, const std::string& what) {
#if H5_VERSION_GE(1, 12, 0)
  H5O_info2_t info{};
  check(H5Oget_info3(object, &info, H5O_INFO_BASIC), what, Errc::corrupt);
#else
  H5O_info_t info{};
  check(H5Oget_info2(object, &info, H5O_INFO_BASIC), what, Errc::corrupt);
#endif
  return info.fileno;
}

std::recursive_mutex& library_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

herr_t take_description(unsigned, const H5E_error2_t* error, void* text) {
  // Walking upward, the first entry with a description is the innermost reason.
  auto* reason = static_cast<std::string*>(text);
  if (reason->empty() && error->desc != nullptr) *reason = error->desc;
  return 0;
}

/// A little-endian IEEE-like float of 16 bits.
Type half_float(std::size_t exponent_at, std::size_t exponent_bits, std::size_t mantissa_bits,
                std::size_t bias) {
  Type type(H5Tcopy(H5T_IEEE_F32LE), "copy a float type");
  check(H5Tset_fields(type.get(), 15, exponent_at, exponent_bits, 0, mantissa_bits), "set fields");
  check(H5Tset_size(type.get(), 2), "set size");
  check(H5Tset_ebias(type.get(), bias), "set bias");
  return type;
}

Type boolean() {
  Type type(H5Tenum_create(H5T_STD_I8LE), "make an enum type");
  const std::int8_t no = 0;
  const std::int8_t yes = 1;
  check(H5Tenum_insert(type.get(), "FALSE", &no), "name an enum value");
  check(H5Tenum_insert(type.get(), "TRUE", &yes), "name an enum value");
  return type;
}

Type complex_of(const char* real, const char* imaginary, hid_t part) {
  const std::size_t bytes = H5Tget_size(part);
  Type type(H5Tcreate(H5T_COMPOUND, 2 * bytes), "make a compound type");
  check(H5Tinsert(type.get(), real, 0, part), "insert a field");
  check(H5Tinsert(type.get(), imaginary, bytes, part), "insert a field");
  return type;
}

}  // namespace

Session::Session() : lock_(library_mutex()) {
  H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Session::~Session() { H5Eset_auto2(H5E_DEFAULT, function_, data_); }

void fail_hdf5(Errc code, const std::string& what) {
  std::string reason;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_description, &reason);
  H5Eclear2(H5E_DEFAULT);
  fail(code, "{}: HDF5: {}", what, reason.empty() ? "no reason given" : reason);
}

SerialFile open_serial(const std::filesystem::path& path) {
  const Plist access(H5Pcreate(H5P_FILE_ACCESS), "make file access properties");
  check(H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG), "set the close degree");
  return {H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()),
          fmt::format("cannot open '{}'", path.string()), Errc::corrupt};
}

Dataset open_dataset(hid_t file, const std::string& name) {
  const std::string what = fmt::format("open dataset '/{}'", name);
  Dataset dataset(H5Dopen2(file, name.c_str(), H5P_DEFAULT), what, Errc::corrupt);
  const Plist creation(H5Dget_create_plist(dataset.get()), what, Errc::corrupt);
  const bool outside = file_number(dataset.get(), what) != file_number(file, what) ||
                       H5Pget_external_count(creation.get()) != 0 ||
                       H5Pget_layout(creation.get()) == H5D_VIRTUAL;
  if (outside) fail(Errc::unsafe, "dataset '/{}' keeps its data in another file", name);
  return dataset;
}

Selection select_box(const Dataset& dataset, const Box& box) {
  Space in_file(H5Dget_space(dataset.get()), "get a dataset's space");
  if (box.start.empty()) {
    Space in_memory(H5Screate(H5S_SCALAR), "make a scalar dataspace");
    return {std::move(in_file), std::move(in_memory)};
  }
  const std::vector<hsize_t> start(box.start.begin(), box.start.end());
  const std::vector<hsize_t> count(box.count.begin(), box.count.end());
  check(H5Sselect_hyperslab(in_file.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(),
                            nullptr),
        "select a hyperslab");
  Space in_memory(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr),
                  "make a dataspace");
  return {std::move(in_file), std::move(in_memory)};
}

Selection select_nothing(const Dataset& dataset) {
  Space in_file(H5Dget_space(dataset.get()), "get a dataset's space");
  check(H5Sselect_none(in_file.get()), "select nothing");
  Space in_memory(H5Scopy(in_file.get()), "copy a dataspace");
  return {std::move(in_file), std::move(in_memory)};
}

Type file_type(DType dtype) {
  const auto copy = [](hid_t type) { return Type(H5Tcopy(type), "copy a type"); };
  switch (dtype) {
    case DType::f64:
      return copy(H5T_IEEE_F64LE);
    case DType::f32:
      return copy(H5T_IEEE_F32LE);
    case DType::f16:
      return half_float(10, 5, 10, 15);
    case DType::bf16:
      return half_float(7, 8, 7, 127);
    case DType::i64:
      return copy(H5T_STD_I64LE);
    case DType::i32:
      return copy(H5T_STD_I32LE);
    case DType::i16:
      return copy(H5T_STD_I16LE);
    case DType::i8:
      return copy(H5T_STD_I8LE);
    case DType::u16:
      return copy(H5T_STD_U16LE);
    case DType::u32:
      return copy(H5T_STD_U32LE);
    case DType::u64:
      return copy(H5T_STD_U64LE);
    case DType::u8:
    case DType::f8_e4m3fn:
    case DType::f8_e5m2:
      return copy(H5T_STD_U8LE);
    case DType::boolean:
      return boolean();
    case DType::c128:
      return complex_of("r", "i", H5T_IEEE_F64LE);
    case DType::c64:
      return complex_of("r", "i", H5T_IEEE_F32LE);
    case DType::c32:
      // Not {r, i}: h5py 3.7 takes those for NumPy's complex, which has no half precision, and
      // fails.
      return complex_of("real", "imag", half_float(10, 5, 10, 15).get());
  }
  fail(Errc::internal, "no HDF5 type for dtype code {}", static_cast<unsigned>(dtype));
}

bool needs_tag(DType dtype) { return dtype == DType::f8_e4m3fn || dtype == DType::f8_e5m2; }

Type text_type(std::uint64_t bytes) {
  Type type(H5Tcopy(H5T_C_S1), "copy the string type");
  check(H5Tset_size(type.get(), bytes), "size a string type");
  check(H5Tset_strpad(type.get(), H5T_STR_NULLPAD), "pad a string type");
  check(H5Tset_cset(type.get(), H5T_CSET_UTF8), "set a string's encoding");
  return type;
}

}  // namespace cairn::detail::h5
