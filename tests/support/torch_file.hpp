#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::test {

struct ZipPart {
  std::string name;
  std::string data;
  bool long_sizes = false;  ///< in the ZIP64 field, as members of more than 4 GiB have them
  bool described = false;   ///< sizes and CRC behind the data, as PyTorch writes
};

/// A ZIP archive, written from nothing but its specification.
std::string zip_of(const std::vector<ZipPart>& parts, bool zip64_end = false);

/// A pickle of protocol 2, opcode by opcode.
class Pickler {
 public:
  Pickler& raw(std::string_view bytes) {
    bytes_ += bytes;
    return *this;
  }
  Pickler& text(std::string_view value);
  Pickler& integer(std::int64_t value);
  Pickler& integers(const std::vector<std::int64_t>& values);  ///< a tuple
  Pickler& global(std::string_view module, std::string_view name);
  /// What torch.save writes for a tensor; strides and offset in elements.
  Pickler& tensor(std::string_view storage_type, std::string_view key,
                  std::int64_t storage_elements, std::int64_t offset,
                  const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides);
  /// The pickle.
  std::string stop() { return bytes_ + "."; }

 private:
  std::string bytes_{"\x80\x02", 2};
};

}  // namespace cairn::test
