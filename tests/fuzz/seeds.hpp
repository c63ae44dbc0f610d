#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cairn/manifest.hpp"
#include "formats/hdf5/commit.hpp"
#include "formats/hdf5/index.hpp"
#include "fuzz/reader_target.hpp"

namespace cairn::fuzz {

inline constexpr std::uintmax_t kMostSeedBytes = 1 << 17;

/// Inputs that need no file: the tables of a container, and a JSON text.
inline std::vector<std::string> own_seeds() {
  std::vector<TensorEntry> tensors(3);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    tensors[i].name = "model/layer." + std::to_string(i) + ".weight";
    tensors[i].shape = {4, 2 * i + 2};
    tensors[i].offset = 4096 * (i + 1);
    Extent extent;
    extent.offset = tensors[i].offset;
    extent.box = Box::whole(tensors[i].shape);
    extent.digest = 1;
    extent.writer = static_cast<std::int32_t>(i);
    tensors[i].extents.push_back(extent);
  }
  const std::vector<std::byte> index = detail::encode_index(tensors, {{"old.h5", 1000, 7, 2}});
  detail::CommitRecord record;
  record.info.library_version = "1";
  record.info.writers = 3;
  const std::vector<std::byte> commit = detail::encode_commit(record);
  const auto text = [](const std::vector<std::byte>& bytes) {
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  return {pack(Use::index, {{"", text(index)}}), pack(Use::commit, {{"", text(commit)}}),
          pack(Use::json, {{"", R"({"a":{"b":[1,-2.5e3,null,true,"\u00e9"]}})"}})};
}

/// Every file below the directories as an input, and every directory of theirs that holds files
/// as one with all that is in it.
inline std::vector<std::string> seeds(const std::vector<std::filesystem::path>& directories) {
  namespace fs = std::filesystem;
  std::vector<std::string> seeds = own_seeds();
  std::map<fs::path, std::vector<fs::path>> groups;  // by directory, all files below it
  for (const fs::path& root : directories) {
    if (!fs::is_directory(root)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      if (!entry.is_regular_file() || entry.file_size() > kMostSeedBytes) continue;
      for (fs::path up = entry.path().parent_path(); up != root && up != up.root_path();
           up = up.parent_path()) {
        groups[up].push_back(entry.path());
      }
      std::ifstream in(entry.path(), std::ios::binary);
      const std::string bytes{std::istreambuf_iterator<char>(in), {}};
      seeds.push_back(pack(Use::file, {{"", bytes}}));
      if (bytes.starts_with("PK")) seeds.push_back(pack(Use::mended, {{"", bytes}}));
    }
  }
  for (auto& [directory, paths] : groups) {
    std::sort(paths.begin(), paths.end());
    std::vector<std::pair<std::string, std::string>> files;
    std::uintmax_t bytes = 0;
    for (const fs::path& path : paths) {
      bytes += fs::file_size(path);
      std::ifstream in(path, std::ios::binary);
      files.emplace_back(fs::relative(path, directory).string(),
                         std::string{std::istreambuf_iterator<char>(in), {}});
    }
    if (bytes <= kMostSeedBytes) seeds.push_back(pack(Use::directory, files));
  }
  std::sort(seeds.begin() + 3, seeds.end());  // whatever order the file system has
  return seeds;
}

}  // namespace cairn::fuzz
