#include "formats/sharded.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/text.hpp"
#include "base/throw.hpp"
#include "formats/strict_json.hpp"
#include "os/file.hpp"

namespace cairn::detail {
namespace {

constexpr std::uint64_t kMostIndexBytes = 100'000'000;  // that of a header, which holds more

struct ShardIndex {
  std::vector<std::string> tensors;
  std::vector<std::uint32_t> shard;  ///< by tensor: position in `shards`
  std::vector<std::string> shards;   ///< in the order of their names
  nlohmann::json metadata = nlohmann::json::object();
};

class IndexReader final : public JsonReader {
 public:
  IndexReader(ShardIndex& index, TableBytes& table_bytes)
      : index_(index), table_bytes_(table_bytes) {}

  void on_object() override {
    ++depth_;
    if (!in_map()) return;
    if (depth_ > 2) refuse("an object");
    ++maps_;
  }
  void on_object_end() override { --depth_; }
  void on_array() override {
    ++depth_;
    if (in_map()) refuse("a list");
  }
  void on_array_end() override { --depth_; }
  void on_key(std::string& text) override {
    if (depth_ == 1) section_ = std::move(text);
    if (depth_ == 2) key_ = std::move(text);
  }
  void on_text(std::string& text) override {
    if (in_map() && depth_ == 2) {
      table_bytes_.add_bytes(kOfIndex + key_.size());
      index_.tensors.push_back(key_);
      files_.push_back(number_of(text));
    } else {
      on_scalar(text);
    }
  }
  void on_natural(std::uint64_t value) override { on_scalar(value); }
  void on_number(double value) override { on_scalar(value); }
  void on_word(std::string_view word) override { on_scalar(word); }

  /// Numbers the shards in the order of their names.
  void finish() {
    if (maps_ != 1) fail(Errc::corrupt, "it needs one 'weight_map'");
    std::vector<std::uint32_t> position(numbers_.size());
    for (const auto& [name, number] : numbers_) {
      position[number] = static_cast<std::uint32_t>(index_.shards.size());
      index_.shards.push_back(name);
    }
    for (const std::uint32_t file : files_) index_.shard.push_back(position[file]);
  }

 protected:
  std::string place() const override {
    return depth_ > 1 && !section_.empty() ? fmt::format("'{}'", section_) : "it";
  }

 private:
  bool in_map() const { return section_ == "weight_map"; }

  /// Of all that is not in the map, the plain values of `metadata` are kept.
  template <class T>
  void on_scalar(const T& value) {
    if (in_map()) refuse("something else than the name of a file");
    if (section_ != "metadata" || depth_ != 2) return;
    table_bytes_.add_bytes(kOfIndex + key_.size());
    index_.metadata[key_] = value;
  }

  std::uint32_t number_of(const std::string& file) {
    table_bytes_.add_bytes(numbers_.contains(file) ? 0 : 2 * (kOfIndex + file.size()));
    return numbers_.try_emplace(file, static_cast<std::uint32_t>(numbers_.size())).first->second;
  }

  // A name, its places in lists, and what finds it: without its characters.
  static constexpr std::uint64_t kOfIndex = 96;

  ShardIndex& index_;
  TableBytes& table_bytes_;
  std::uint64_t depth_ = 0;
  int maps_ = 0;
  std::string section_;  // the key of the outermost object
  std::string key_;
  std::vector<std::uint32_t> files_;  // by tensor
  std::map<std::string, std::uint32_t> numbers_;
};

ShardIndex read_index(const File& file, TableBytes& table_bytes) {
  const std::uint64_t size = file.size();
  if (size > kMostIndexBytes) {
    fail(Errc::unsafe, "it has {} bytes; an index of at most {} is read", size, kMostIndexBytes);
  }
  std::string text(size, '\0');
  file.read_at(0, std::as_writable_bytes(std::span(text)));
  ShardIndex index;
  IndexReader reader(index, table_bytes);
  read_json(text, reader);
  reader.finish();
  return index;
}

/// A path below the index's directory, by its components: links inside are the user's own.
void check_shard_name(const std::string& name) {
  if (leaves_directory(name)) {
    fail(Errc::unsafe, "it names the shard '{}', which is not below its directory", name);
  }
}

Manifest read_named_shard(const std::filesystem::path& path, const std::string& name,
                          const std::function<Manifest(const std::filesystem::path&)>& read) {
  try {
    return read(path);
  } catch (const Error& error) {
    if (error.code() == Errc::not_found) {
      fail(Errc::corrupt, "its shard '{}' does not exist beside it", name);
    }
    if (error.code() == Errc::io) throw;
    fail(error.code(), "its shard '{}': {}", name, error.what());
  }
}

/// Takes the shards into one manifest, one by one.
class Merger {
 public:
  Merger(const ShardIndex& index, Manifest& manifest, TableBytes& table_bytes)
      : index_(index),
        manifest_(manifest),
        table_bytes_(table_bytes),
        names_(std::vector<std::string_view>(index.tensors.begin(), index.tensors.end())),
        seen_(index.tensors.size()) {
    if (const auto twice = names_.duplicate()) {
      fail(Errc::corrupt, "its 'weight_map' lists tensor '{}' twice", *twice);
    }
  }

  void add(std::uint32_t shard, Manifest part) {
    if (shard == 0) manifest_.format = part.format;
    if (part.format != manifest_.format) {
      fail(Errc::unsupported, "its shards are of several formats ({}, {})", manifest_.format,
           part.format);
    }
    const auto file = static_cast<std::uint32_t>(manifest_.files.size());
    for (TensorEntry& tensor : part.tensors) {
      take_name(tensor.name, shard);
      for (Extent& extent : tensor.extents) extent.file += file;
      manifest_.tensors.push_back(std::move(tensor));
    }
    for (Checksum& checksum : part.checksums) {
      checksum.file += file;
      manifest_.checksums.push_back(checksum);
    }
    for (FileEntry& entry : part.files) manifest_.files.push_back(std::move(entry));
    for (std::string& warning : part.warnings) manifest_.warnings.push_back(std::move(warning));
    if (const auto aliases = part.documents.find("aliases"); aliases != part.documents.end()) {
      table_bytes_.add_bytes(kTimesHeld * aliases->second.size());
      for (auto& names : nlohmann::json::parse(aliases->second)) {
        aliases_.push_back(std::move(names));
      }
      part.documents.erase(aliases);
      has_aliases_ = true;
    }
    for (auto& [name, text] : part.documents) {
      const auto [known, is_new] = documents_[name].try_emplace(std::move(text));
      table_bytes_.add_bytes(is_new ? known->first.size() : 0);
      known->second.push_back(shard);
    }
  }

  void finish() {
    for (std::size_t t = 0; t < seen_.size(); ++t) {
      if (seen_[t]) continue;
      fail(Errc::corrupt, "its shard '{}' lacks tensor '{}'", index_.shards[index_.shard[t]],
           index_.tensors[t]);
    }
    add_documents();
    check_total();
  }

 private:
  void take_name(const std::string& name, std::uint32_t shard) {
    const auto position = names_.find(name);
    if (!position || index_.shard[*position] != shard) {
      fail(Errc::corrupt, "its shard '{}' holds tensor '{}', which it does not place there",
           index_.shards[shard], name);
    }
    if (seen_[*position]) {
      fail(Errc::corrupt, "its shard '{}' holds tensor '{}' twice", index_.shards[shard], name);
    }
    seen_[*position] = true;
  }

  /// What all shards that have a document say alike is one document; the rest is by shard.
  void add_documents() {
    std::map<std::uint32_t, std::string> by_shard;
    for (const auto& [name, texts] : documents_) {
      if (texts.size() == 1) {
        manifest_.documents[name] = texts.begin()->first;
        continue;
      }
      for (const auto& [text, shards] : texts) {
        for (const std::uint32_t shard : shards) {
          table_bytes_.add_bytes(kTimesHeld * text.size());
          std::string& members = by_shard[shard];
          members += fmt::format("{}\"{}\":{}", members.empty() ? "" : ",", name, text);
        }
      }
    }
    if (has_aliases_) manifest_.documents["aliases"] = aliases_.dump();
    std::string all;
    for (const auto& [shard, members] : by_shard) {
      all += fmt::format("{}{}:{{{}}}", all.empty() ? "{" : ",",
                         nlohmann::json(index_.shards[shard]).dump(), members);
    }
    if (!all.empty()) manifest_.documents["shards"] = all + "}";
    if (!index_.metadata.empty()) manifest_.documents["index"] = index_.metadata.dump();
  }

  /// Tools are known to write other sums, for example in another dtype.
  void check_total() {
    const auto total = index_.metadata.find("total_size");
    if (total == index_.metadata.end() || !total->is_number()) return;
    const std::uint64_t bytes = manifest_.tensor_bytes();
    if (total->get<double>() == static_cast<double>(bytes)) return;
    manifest_.warnings.push_back(
        fmt::format("'{}' says total_size {}, but its tensors have {} bytes",
                    manifest_.path().string(), total->dump(), bytes));
  }

  // A text as a part of another that grows, or as names in a JSON list.
  static constexpr std::uint64_t kTimesHeld = 3;

  const ShardIndex& index_;
  Manifest& manifest_;
  TableBytes& table_bytes_;
  TensorNames names_;
  std::vector<bool> seen_;  // by tensor of the index
  // by name and text
  std::map<std::string, std::map<std::string, std::vector<std::uint32_t>>> documents_;
  nlohmann::json aliases_ = nlohmann::json::array();  // names that share a storage, in any shard
  bool has_aliases_ = false;
};

}  // namespace

Manifest read_sharded(const std::filesystem::path& index_path, TableBytes& table_bytes,
                      const std::function<Manifest(const std::filesystem::path&)>& read_shard) {
  const File file = File::open_read(index_path);
  table_bytes.add_file(file.size());
  const ShardIndex index = read_index(file, table_bytes);
  Manifest manifest;
  manifest.files.push_back({index_path, file.size(), Access::extents, file.fingerprint()});
  Merger merger(index, manifest, table_bytes);
  for (std::uint32_t shard = 0; shard < index.shards.size(); ++shard) {
    const std::string& name = index.shards[shard];
    check_shard_name(name);
    merger.add(shard, read_named_shard(index_path.parent_path() / name, name, read_shard));
  }
  merger.finish();
  return manifest;
}

}  // namespace cairn::detail
