#include "fuzz/torch_target.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "cairn/error.hpp"
#include "formats/torch/reader.hpp"

namespace cairn::fuzz {
namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "torch_target: %s\n", what);
  std::abort();
}

/// The bytes from an extent's first element to its last.
std::uint64_t span_of(const TensorEntry& tensor) {
  std::uint64_t bytes = item_bytes(tensor.dtype);
  if (tensor.layout != Layout::strided) return tensor.bytes();
  for (std::size_t d = 0; d < tensor.shape.size(); ++d) {
    bytes += (tensor.shape[d] - 1) * tensor.strides[d];
  }
  return bytes;
}

void check(const Manifest& manifest, std::uint64_t file_bytes) {
  for (const TensorEntry& tensor : manifest.tensors) {
    require(tensor.extents.size() == (tensor.bytes() == 0 ? 0 : 1), "a tensor without its place");
    for (const Extent& extent : tensor.extents) {
      const std::uint64_t bytes = span_of(tensor);
      require(bytes <= file_bytes && extent.offset <= file_bytes - bytes,
              "a tensor outside the file");
    }
  }
  for (const auto& [name, text] : manifest.documents) {
    require(nlohmann::json::accept(text), "a document that is no JSON");
  }
}

}  // namespace

void read_as_torch(std::span<const std::uint8_t> bytes) {
  const int fd = memfd_create("fuzz", 0);
  require(fd >= 0, "no file in memory");
  require(write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
          "no room in memory");
  try {
    check(detail::read_torch("/proc/self/fd/" + std::to_string(fd)), bytes.size());
  } catch (const Error& error) {
    require(error.code() == Errc::corrupt || error.code() == Errc::unsupported ||
                error.code() == Errc::unsafe,
            error.what());
  }
  close(fd);
}

}  // namespace cairn::fuzz
