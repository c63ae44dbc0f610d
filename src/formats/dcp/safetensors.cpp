#include "formats/dcp/safetensors.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "base/throw.hpp"
#include "formats/dcp/metadata.hpp"
#include "formats/dcp/parts.hpp"
#include "formats/safetensors/reader.hpp"
#include "formats/strict_json.hpp"
#include "os/file.hpp"

namespace cairn::detail::dcp {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDocument = "__metadata__";
constexpr const char* kSharding = "DCP_SHARDING_INFO";
constexpr const char* kVersion = "DCP_VERSION";
constexpr std::string_view kOffsets = "saved_offsets";
constexpr std::size_t kMostNameBytes = 64;

/// {name: {"saved_offsets": [...]}}: where in its tensor each part of a file begins.
class ShardingReader final : public JsonReader {
 public:
  explicit ShardingReader(std::map<std::string, Shape>& offsets) : offsets_(offsets) {}

  void on_object() override {
    if (++depth_ > 2) refuse("an object");
  }
  void on_object_end() override { --depth_; }
  void on_key(std::string& key) override {
    if (depth_ == 1) {
      current_ = &offsets_[key];
    } else if (key != kOffsets) {
      fail(Errc::unsupported, "its '{}' has a key '{}' that is not known", kSharding, key);
    }
  }
  void on_array() override {
    if (depth_ != 2) refuse("a list");
    in_list_ = true;
  }
  void on_array_end() override { in_list_ = false; }
  void on_natural(std::uint64_t value) override {
    if (!in_list_) refuse("a number");
    current_->push_back(value);
  }

 protected:
  std::string place() const override { return fmt::format("its '{}'", kSharding); }

 private:
  std::map<std::string, Shape>& offsets_;
  Shape* current_ = nullptr;
  int depth_ = 0;
  bool in_list_ = false;
};

std::vector<fs::path> files_in(const fs::path& directory) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : entries_of(directory)) {
    if (is_sharded_safetensors(entry.path().filename().string())) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

/// A tensor as far as its parts were seen.
struct Parts {
  TensorMetadata tensor;
  std::vector<Extent> extents;
};

class Merger {
 public:
  explicit Merger(TableBytes& table_bytes) : table_bytes_(table_bytes) {}

  void add(const fs::path& path) {
    const Manifest part = read_named(path);
    table_bytes_.add_file(part.file_bytes());
    std::map<std::string, Shape> offsets = offsets_of(part, path);
    const auto file = static_cast<std::uint32_t>(manifest_.files.size());
    manifest_.files.push_back(part.files[0]);
    for (const TensorEntry& tensor : part.tensors) {
      const auto at = offsets.find(tensor.name);
      if (at == offsets.end() || at->second.size() != tensor.shape.size()) {
        fail(Errc::corrupt, "'{}' does not say where its part of tensor '{}' lies",
             path.filename().string(), tensor.name);
      }
      add_part(tensor, at->second, file);
    }
  }

  Manifest finish() {
    manifest_.tensors.reserve(order_.size());
    for (const std::string& name : order_) {
      const auto parts = tensors_.extract(name);  // so that there are never two of all
      check_boxes(parts.mapped().tensor);
      manifest_.tensors.push_back(entry_of(std::move(parts.mapped())));
    }
    manifest_.format = "dcp";
    return std::move(manifest_);
  }

 private:
  static Manifest read_named(const fs::path& path) {
    try {
      TableBytes own;  // its table is gone before the next one is read
      return read_safetensors(path, own);
    } catch (const Error& error) {
      if (error.code() == Errc::io) throw;
      fail(error.code(), "'{}': {}", path.filename().string(), error.what());
    }
  }

  static std::map<std::string, Shape> offsets_of(const Manifest& part, const fs::path& path) {
    std::map<std::string, Shape> offsets;
    const auto document = part.documents.find(kDocument);
    const auto metadata = document == part.documents.end()
                              ? nlohmann::json::object()
                              : nlohmann::json::parse(document->second);
    const auto text = metadata.find(kSharding);
    if (text == metadata.end()) {
      fail(Errc::corrupt, "'{}' has no '{}'", path.filename().string(), kSharding);
    }
    if (metadata.value(kVersion, "1.0") != "1.0") {
      fail(Errc::unsupported, "'{}' is of {} {}; 1.0 is known", path.filename().string(), kVersion,
           metadata.value(kVersion, ""));
    }
    ShardingReader reader(offsets);
    read_json(text->get_ref<const std::string&>(), reader);
    return offsets;
  }

  void add_part(const TensorEntry& part, const Shape& start, std::uint32_t file) {
    const auto [known, is_new] = tensors_.try_emplace(part.name);
    TensorMetadata& tensor = known->second.tensor;
    if (is_new) {
      for (int names = 0; names < 3; ++names) table_bytes_.add_name(part.name, part.shape);
      table_bytes_.add_bytes(sizeof(Parts));
      order_.push_back(part.name);
      tensor.name = part.name;
      tensor.dtype = part.dtype;
      tensor.shape = Shape(part.shape.size(), 0);
    }
    if (tensor.dtype != part.dtype || tensor.shape.size() != part.shape.size()) {
      fail(Errc::corrupt, "the parts of tensor '{}' differ in type or dimensions", part.name);
    }
    for (std::size_t d = 0; d < start.size(); ++d) {
      std::uint64_t end = 0;
      if (__builtin_add_overflow(start[d], part.shape[d], &end)) {
        fail(Errc::corrupt, "a part of tensor '{}' has no sensible place", part.name);
      }
      tensor.shape[d] = std::max(tensor.shape[d], end);
    }
    if (part.extents.empty()) return;
    table_bytes_.add_extent(start.size());  // and its box once more
    table_bytes_.add_extent(start.size());
    Extent extent = part.extents[0];
    extent.file = file;
    extent.box = {start, part.shape};
    tensor.boxes.push_back(extent.box);
    known->second.extents.push_back(std::move(extent));
  }

  static TensorEntry entry_of(Parts parts) {
    TensorEntry entry;
    entry.name = parts.tensor.name;
    entry.dtype = parts.tensor.dtype;
    entry.shape = parts.tensor.shape;
    entry.extents = std::move(parts.extents);
    lay_out(entry);
    return entry;
  }

  TableBytes& table_bytes_;
  Manifest manifest_;
  std::map<std::string, Parts> tensors_;
  std::vector<std::string> order_;
};

}  // namespace

bool is_sharded_safetensors(const std::string& name) {
  static const std::regex known(R"(shard-\d{5,9}-model-\d{5,9}-of-\d{5,9}\.safetensors)");
  return name.size() < kMostNameBytes && std::regex_match(name, known);
}

bool has_sharded_safetensors(const fs::path& directory) {
  std::error_code ignored;
  return !fs::exists(directory / ".metadata", ignored) && !files_in(directory).empty();
}

Manifest read_sharded_safetensors(const fs::path& directory, TableBytes& table_bytes) {
  Merger merger(table_bytes);
  for (const fs::path& path : files_in(directory)) merger.add(path);
  return merger.finish();
}

}  // namespace cairn::detail::dcp
