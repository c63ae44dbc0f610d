#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/inflate.hpp"
#include "cairn/manifest.hpp"
#include "formats/hdf5/h5.hpp"

namespace cairn::detail {

/// A dataset as another program left it, open to read. HDF5 undoes filters without a limit: its
/// deflate grows a buffer until the stream ends, whatever the chunk's size. So only filters that
/// are known are undone, and HDF5 sees a chunk only after it was looked at here. A read takes at
/// most three chunks of memory, of at most 64 MiB each. Its user holds a Session, also when it
/// ends. Local.
class ForeignDataset {
 public:
  /// `what` names the dataset in messages. Errors: corrupt; unsafe: its data lies in another file
  /// (open_dataset), it has filters besides shuffle, deflate and fletcher32, or one of them twice,
  /// or its chunks are larger than kLargestChunk.
  ForeignDataset(hid_t file, const std::string& name, std::string what);

  hid_t id() const { return dataset_.get(); }
  const std::string& what() const { return what_; }
  const Shape& shape() const { return grid_.shape; }
  /// Bytes of an element in the file.
  std::uint64_t item() const { return item_; }
  /// Fills `out` with `box` in dense row-major order. `type` has the size of the file's type.
  /// Errors: corrupt, where a chunk does not give the bytes that it should; unsafe, where it is
  /// stored in many more bytes than it has.
  void read(hid_t type, const Box& box, std::byte* out);

 private:
  void take_filters(hid_t creation);
  void take_chunk(hid_t creation);
  std::uint64_t chunks_of(const Box& box) const;
  void check_chunk(const Box& chunk);

  std::string what_;
  h5::Dataset dataset_;
  std::uint64_t item_ = 0;
  TensorEntry grid_;                           // its shape and, where there are any, its chunks
  std::vector<H5Z_filter_t> filters_;          // in the order in which they were applied
  std::unordered_set<std::uint64_t> checked_;  // positions of chunks
  Inflater inflater_;
};

}  // namespace cairn::detail
