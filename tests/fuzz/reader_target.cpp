#include "fuzz/reader_target.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "base/crc32.hpp"
#include "cairn/error.hpp"
#include "formats/detect.hpp"
#include "formats/hdf5/commit.hpp"
#include "formats/hdf5/index.hpp"
#include "formats/read_manifest.hpp"
#include "formats/strict_json.hpp"

namespace cairn::fuzz {
namespace {

namespace fs = std::filesystem;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "reader_target: %s\n", what);
  std::abort();
}

/// The bytes from an extent's first element to its last.
std::uint64_t span_of(const TensorEntry& tensor, const Extent& extent) {
  std::uint64_t bytes = item_bytes(tensor.dtype);
  if (tensor.layout != Layout::strided) return extent.box.elements() * bytes;
  for (std::size_t d = 0; d < tensor.shape.size(); ++d) {
    bytes += (tensor.shape[d] - 1) * tensor.strides[d];
  }
  return bytes;
}

void check(const Manifest& manifest) {
  for (const TensorEntry& tensor : manifest.tensors) {
    require(tensor.extents.empty() == (tensor.bytes() == 0), "a tensor without its place");
    for (const Extent& extent : tensor.extents) {
      require(extent.file < manifest.files.size(), "a tensor in no file");
      const std::uint64_t file_bytes = manifest.files[extent.file].bytes;
      const std::uint64_t bytes = span_of(tensor, extent);
      require(bytes <= file_bytes && extent.offset <= file_bytes - bytes,
              "a tensor outside its file");
    }
  }
  for (const auto& [name, text] : manifest.documents) {
    require(nlohmann::json::accept(text), "a document that is no JSON");
  }
}

/// Refusals are what readers are for; anything else is a finding.
template <class F>
void expect_refusal(F&& read) {
  try {
    read();
  } catch (const Error& error) {
    constexpr std::array kRefusals{Errc::corrupt, Errc::unsupported, Errc::unsafe, Errc::usage};
    require(std::find(kRefusals.begin(), kRefusals.end(), error.code()) != kRefusals.end(),
            error.what());
  }
}

void read_path(const fs::path& path) {
  expect_refusal([&] {
    const detail::FoundFormat found = detail::find_format(path);
    if (found.format != detail::Format::cairn) check(detail::read_manifest(found));
  });
}

template <class T>
T number_at(std::string_view bytes, std::size_t position) {
  T value{};
  if (position + sizeof(T) <= bytes.size()) {
    std::memcpy(&value, bytes.data() + position, sizeof(T));
  }
  return value;
}

/// Gives each member of the zip archives in `bytes` the checksum of what it holds, so that what is
/// behind the check is reached, too.
void mend_checksums(std::string& bytes) {
  constexpr std::string_view kEnd("PK\5\6");
  constexpr std::string_view kMember("PK\1\2");
  for (std::size_t end = bytes.find(kEnd); end != std::string::npos;
       end = bytes.find(kEnd, end + 1)) {
    const auto table_bytes = number_at<std::uint32_t>(bytes, end + 12);
    const auto table_start = number_at<std::uint32_t>(bytes, end + 16);
    if (std::uint64_t{table_bytes} + table_start > end) continue;
    const std::size_t begin = end - table_bytes - table_start;  // of the archive
    for (std::size_t row = begin + table_start;
         row + 46 <= end && bytes.compare(row, 4, kMember) == 0;
         row += 46U + number_at<std::uint16_t>(bytes, row + 28) +
                number_at<std::uint16_t>(bytes, row + 30) +
                number_at<std::uint16_t>(bytes, row + 32)) {
      const std::uint64_t count = number_at<std::uint32_t>(bytes, row + 20);
      const std::uint64_t local = begin + number_at<std::uint32_t>(bytes, row + 42);
      if (local + 30 > bytes.size()) continue;
      const std::uint64_t data = local + 30 + number_at<std::uint16_t>(bytes, local + 26) +
                                 number_at<std::uint16_t>(bytes, local + 28);
      if (data > bytes.size() || count > bytes.size() - data) continue;
      const std::uint32_t crc =
          detail::crc32_update(0, std::as_bytes(std::span(bytes).subspan(data, count)));
      std::memcpy(bytes.data() + row + 16, &crc, sizeof(crc));
      std::memcpy(bytes.data() + local + 14, &crc, sizeof(crc));
    }
  }
}

/// A directory in memory that is empty again when it is gone.
class Directory {
 public:
  Directory() : path_(root() / std::to_string(getpid())) {
    fs::remove_all(path_);
    fs::create_directories(path_);
  }
  ~Directory() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }

 private:
  static fs::path root() {
    return (fs::is_directory("/dev/shm") ? "/dev/shm" : fs::temp_directory_path()) /
           fs::path("cairn-fuzz");
  }
  fs::path path_;
};

/// Puts the packed files into a directory. Names that leave it are a reader's affair only where
/// files refer to each other.
void unpack(std::string_view packed, const fs::path& directory) {
  std::set<std::string> known;
  while (packed.size() > 5) {
    const std::size_t name_bytes = static_cast<unsigned char>(packed[0]);
    if (packed.size() < 5 + name_bytes) return;
    const std::string name(packed.substr(1, name_bytes));
    const std::size_t count = std::min<std::size_t>(
        number_at<std::uint32_t>(packed, 1 + name_bytes), packed.size() - 5 - name_bytes);
    std::string bytes(packed.substr(5 + name_bytes, count));
    packed.remove_prefix(5 + name_bytes + count);
    const fs::path path(name);
    const bool leaves = std::any_of(path.begin(), path.end(), [](const fs::path& part) {
      return part == ".." || part == "." || part.native().size() > 64;
    });
    if (name.empty() || name.find('\0') != std::string::npos || path.is_absolute() || leaves ||
        known.size() > 64 || !known.insert(name).second) {
      continue;
    }
    std::error_code ignored;
    fs::create_directories((directory / path).parent_path(), ignored);
    mend_checksums(bytes);
    std::ofstream(directory / path, std::ios::binary) << bytes;
  }
}

void read_directory(std::string_view packed) {
  const Directory directory;
  unpack(packed, directory.path());
  read_path(directory.path());
}

void read_table(Bytes bytes) {
  // Aligned, as all memory that a file was read into.
  const auto raw = std::as_bytes(bytes);
  const std::vector<std::byte> table(raw.begin(), raw.end());
  expect_refusal([&] { detail::check_index(table, 4); });
  expect_refusal([&] {
    for (const TensorEntry& tensor : detail::decode_index(table)) tensor.content_digest();
  });
  expect_refusal([&] { detail::files_of_index(table); });
  expect_refusal([&] {
    const detail::IndexTable lazy(table);
    for (std::size_t i = 0; i < lazy.size(); ++i) lazy.head(i);
  });
}

/// Takes everything.
class AnyReader final : public detail::JsonReader {
 public:
  void on_object() override {}
  void on_array() override {}
  void on_text(std::string&) override {}
  void on_natural(std::uint64_t) override {}
  void on_number(double) override {}
  void on_word(std::string_view) override {}

 protected:
  std::string place() const override { return "it"; }
};

}  // namespace

void read_as_file(Bytes bytes) {
  const int fd = memfd_create("fuzz", 0);
  require(fd >= 0, "no file in memory");
  require(write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
          "no room in memory");
  read_path("/proc/self/fd/" + std::to_string(fd));
  close(fd);
}

std::string pack(Use use, const std::vector<std::pair<std::string, std::string>>& files) {
  std::string packed(1, static_cast<char>(use));
  for (const auto& [name, bytes] : files) {
    if (use != Use::directory) return packed + bytes;
    const auto count = static_cast<std::uint32_t>(bytes.size());
    packed += static_cast<char>(name.size());
    packed += name;
    packed.append(reinterpret_cast<const char*>(&count), sizeof(count));
    packed += bytes;
  }
  return packed;
}

void read_input(Bytes input) {
  if (input.empty()) return;
  const Bytes rest = input.subspan(1);
  const std::string_view text(reinterpret_cast<const char*>(rest.data()), rest.size());
  switch (static_cast<Use>(input[0] % kUses)) {
    case Use::file:
      return read_as_file(rest);
    case Use::mended: {
      std::string bytes(text);
      mend_checksums(bytes);
      return read_as_file({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
    }
    case Use::directory:
      return read_directory(text);
    case Use::index:
      return read_table(rest);
    case Use::commit:
      return expect_refusal([&] {
        detail::decode_commit(std::as_bytes(rest));
        detail::decode_trailer(std::as_bytes(rest));
      });
    case Use::json: {
      AnyReader reader;
      return expect_refusal([&] { detail::read_json(text, reader); });
    }
  }
}

}  // namespace cairn::fuzz
