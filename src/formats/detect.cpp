#include "formats/detect.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/throw.hpp"
#include "formats/dcp/safetensors.hpp"
#include "formats/deepspeed/tag.hpp"
#include "formats/deepspeed/universal.hpp"
#include "formats/hdf5/commit.hpp"
#include "formats/megatron/reader.hpp"
#include "formats/torch/legacy.hpp"
#include "os/file.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSafetensors = ".safetensors";
constexpr std::string_view kIndex = ".index.json";

/// What is no checkpoint but often found in the place of one.
struct Mistaken {
  std::string_view start;
  std::string_view what;
};
constexpr std::array kMistaken{
    Mistaken{"version https://git-lfs.",
             "a Git LFS pointer instead of the file: run 'git lfs pull'"},
    Mistaken{"<!DOCTYPE", "a web page, as a download that went wrong leaves it: fetch it again"},
    Mistaken{"<!doctype", "a web page, as a download that went wrong leaves it: fetch it again"},
    Mistaken{"<html", "a web page, as a download that went wrong leaves it: fetch it again"},
    Mistaken{"<?xml", "an XML text, as a download that went wrong leaves it: fetch it again"},
    Mistaken{"\x1f\x8b", "compressed with gzip: unpack it first"},
    Mistaken{"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first"},
    Mistaken{"BZh", "compressed with bzip2: unpack it first"},
    Mistaken{"\xfd"
             "7zXZ",
             "compressed with xz: unpack it first"},
    Mistaken{"\x93NUMPY", "a NumPy array"},
    Mistaken{"GGUF", "a GGUF file"},
};

std::string_view view(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

bool ends_with_trailer(const File& file) {
  const std::uint64_t size = file.size();
  if (size < kTrailerBytes) return false;
  std::array<std::byte, kTrailerBytes> last{};
  file.read_at(size - kTrailerBytes, last);
  return is_trailer(last);
}

/// A JSON object: nothing else that is known starts with a brace and has no NUL among the first
/// bytes (a safetensors file may start with a brace, but the upper half of its first 8 is 0).
bool is_json(std::string_view head) {
  const auto first = std::find_if_not(head.begin(), head.end(),
                                      [](unsigned char c) { return std::isspace(c) != 0; });
  return first != head.end() && *first == '{' &&
         head.substr(0, 8).find('\0') == std::string_view::npos;
}

/// The length of a header of less than 4 GiB, and its brace. The length may be any bytes, those by
/// which other formats are known among them, but none of these goes on like this.
bool is_safetensors(std::string_view head) {
  constexpr std::string_view kUpperHalf("\0\0\0\0", 4);
  return head.size() > 8 && head.substr(4, 4) == kUpperHalf && head[8] == '{';
}

Format format_of_file(const File& file) {
  std::vector<std::byte> bytes(std::min<std::uint64_t>(file.size(), 4096));
  file.read_at(0, bytes);
  const std::string_view head = view(bytes);
  const std::string name = file.path().filename().string();
  constexpr std::string_view kWithheld("\0\0\0\0\0\0\0\0", 8);
  if (head.starts_with("\x89HDF\r\n\x1a\n") || ends_with_trailer(file)) return Format::cairn;
  if (is_safetensors(head)) return Format::safetensors;
  if (head.starts_with("PK\x03\x04") || head.starts_with("PK\x05\x06")) return Format::torch;
  if (head.size() > 1 && head[0] == '\x80' && head[1] >= 2 && head[1] <= 5) return Format::pickle;
  if (torch::is_legacy(file)) return Format::pickle;  // whose first protocols begin otherwise
  if (head.size() > 257 && head.substr(257).starts_with("ustar")) return Format::pickle;  // a tar
  for (const Mistaken& mistaken : kMistaken) {
    if (!head.starts_with(mistaken.start)) continue;
    fail(Errc::unsupported, "'{}' is no checkpoint: it is {}", file.path().string(), mistaken.what);
  }
  if (is_json(head)) {
    if (name.ends_with(kIndex) || head.find("\"weight_map\"") != std::string_view::npos) {
      return Format::index;
    }
    fail(Errc::unsupported, "'{}' is no checkpoint: it is a JSON text, but no index of shards",
         file.path().string());
  }
  if (head.size() > 8 && head[8] == '{') return Format::safetensors;
  // From here on it is damaged or foreign, and the name says whose complaint helps most.
  if (name.ends_with(kSafetensors)) return Format::safetensors;
  if (head.starts_with(kWithheld)) return Format::cairn;
  fail(Errc::unsupported,
       "'{}' is {}: cairn reads its own containers (.h5), safetensors (.safetensors, "
       "*.safetensors.index.json), PyTorch's files (.pt, .pth, .ckpt, .bin, *.bin.index.json), and "
       "the directories of PyTorch's distributed checkpoints, of DeepSpeed's and of Megatron's",
       file.path().string(), head.empty() ? "empty" : "of no format that cairn knows");
}

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

/// The file that `usual` names, or the only one whose name ends so.
std::optional<fs::path> only_one(const fs::path& directory, std::string_view usual,
                                 const std::vector<std::string>& names, std::string_view end) {
  if (is_file(directory / usual)) return directory / usual;
  std::vector<std::string> found;
  std::copy_if(names.begin(), names.end(), std::back_inserter(found),
               [&](const std::string& name) { return name.ends_with(end); });
  if (found.empty()) return std::nullopt;
  if (found.size() > 1) {
    fail(Errc::usage, "'{}' holds several checkpoints ('{}', '{}', ...); name one of them",
         directory.string(), found[0], found[1]);
  }
  return directory / found.front();
}

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : entries_of(directory)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

std::optional<FoundFormat> find_in_directory(const fs::path& directory) {
  const std::vector<std::string> names = names_in(directory);
  const bool has_pieces = std::any_of(names.begin(), names.end(), [](const std::string& name) {
    return name == ".metadata" || name.ends_with(".distcp") || dcp::is_sharded_safetensors(name);
  });
  if (has_pieces) return FoundFormat{Format::dcp, directory};
  const bool has_states = std::any_of(names.begin(), names.end(), [](const std::string& name) {
    return name.ends_with("_model_states.pt") || name.ends_with("_optim_states.pt");
  });
  const bool has_zero = deepspeed::is_universal(directory);
  if (has_states || has_zero) return FoundFormat{Format::deepspeed, directory};
  if (is_megatron(directory)) return FoundFormat{Format::megatron, directory};
  if (auto path =
          only_one(directory, "model.safetensors.index.json", names, ".safetensors.index.json")) {
    return FoundFormat{Format::index, *path};
  }
  if (auto path = only_one(directory, "model.safetensors", names, kSafetensors)) {
    return FoundFormat{Format::safetensors, *path};
  }
  if (auto path = only_one(directory, "pytorch_model.bin.index.json", names, ".bin.index.json")) {
    return FoundFormat{Format::index, *path};
  }
  if (is_file(directory / "pytorch_model.bin")) {
    return FoundFormat{Format::torch, directory / "pytorch_model.bin"};
  }
  if (deepspeed::names_tag(directory)) return FoundFormat{Format::deepspeed, directory};
  return std::nullopt;
}

namespace {

/// The directory that is a checkpoint, by the file in it that says what the others are: listings
/// name the checkpoint so.
std::optional<FoundFormat> found_by_its_file(const fs::path& path) {
  constexpr std::array<std::string_view, 4> kNames{".metadata", "latest", "latest_universal",
                                                   "latest_checkpointed_iteration.txt"};
  const std::string name = path.filename().string();
  if (std::find(kNames.begin(), kNames.end(), name) == kNames.end()) return {};
  const fs::path directory = path.has_parent_path() ? path.parent_path() : fs::path(".");
  auto found = find_in_directory(directory);
  if (found && found->path != directory) return {};
  return found;
}

FoundFormat find_of_file(const fs::path& path) {
  Format format = Format::pickle;
  try {
    format = format_of_file(File::open_read(path));
  } catch (const Error& error) {
    if (error.code() != Errc::unsupported) throw;
    if (auto found = found_by_its_file(path)) return *found;
    throw;
  }
  if (format == Format::pickle) {
    if (auto found = found_by_its_file(path)) return *found;
  }
  return {format, path};
}

}  // namespace

FoundFormat find_format(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) return find_of_file(path);
  auto found = find_in_directory(path);
  if (!found) {
    fail(Errc::unsupported, "the directory '{}' holds no checkpoint that cairn knows: {}",
         path.string(), kLookedFor);
  }
  // Whatever the name of its file says.
  return fs::is_directory(found->path, ignored) ? *found : find_format(found->path);
}

}  // namespace cairn::detail
