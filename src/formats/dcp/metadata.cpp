#include "formats/dcp/metadata.hpp"

#include <algorithm>
#include <set>
#include <string_view>

#include "base/text.hpp"
#include "base/throw.hpp"
#include "formats/dcp/stored_index.hpp"
#include "formats/pickle/parse.hpp"
#include "formats/torch/storages.hpp"
#include "formats/torch/tensor.hpp"
#include "plan/tiling.hpp"

namespace cairn::detail::dcp {
namespace {

using pickle::Graph;
using pickle::Kind;
using pickle::Ref;

/// Where newer releases of Megatron keep options, iteration and the like, as one dict.
constexpr std::string_view kMegatronCommon = "common_state/shard_0_1";

class Reader {
 public:
  Reader(const Graph& graph, TableBytes& parts_bytes) : graph_(graph), parts_bytes_(parts_bytes) {}

  Metadata read() {
    const Ref root = graph_.root();
    if (!is_a(root, "Metadata")) {
      fail(Errc::unsupported, "it is a pickle, but not of PyTorch's distributed checkpoints");
    }
    read_storage(root);
    paths_ = find(root, "planner_data");
    Metadata metadata;
    for (const pickle::Global& global : graph_.globals()) {
      metadata.globals.insert(global.module + "." + global.name);
      parts_bytes_.add_name(global.name, {});
      parts_bytes_.add_name(global.module, {});
    }
    if (const auto version = find(root, "version"); version && is_text(*version)) {
      metadata.version = graph_.text(*version);
    }
    const auto entries = graph_.pairs(field(root, "state_dict_metadata"));
    for (std::size_t i = 0; i < entries.size(); i += 2) {
      const std::string name = text(entries[i], "a name");
      if (is_a(entries[i + 1], "TensorStorageMetadata")) {
        metadata.tensors.push_back(tensor(name, entries[i + 1]));
      } else if (is_a(entries[i + 1], "BytesStorageMetadata")) {
        metadata.values.push_back(value(name));
      } else {
        fail(Errc::unsupported, "'{}' is neither a tensor nor bytes", name);
      }
    }
    return metadata;
  }

 private:
  bool is_text(Ref ref) const { return graph_.kind(ref) == Kind::text; }

  bool is_a(Ref ref, std::string_view cls) const {
    if (graph_.kind(ref) != Kind::object) return false;
    const Ref callee = graph_.object(ref).callee;
    return graph_.kind(callee) == Kind::global && graph_.global(callee).name == cls;
  }

  /// A field of an object whose state is a dict.
  std::optional<Ref> find(Ref object, std::string_view name) const {
    const Ref state =
        graph_.kind(object) == Kind::object ? graph_.object(object).state : pickle::kNoRef;
    if (state == pickle::kNoRef || graph_.kind(state) != Kind::dict) return std::nullopt;
    return graph_.find(state, name);
  }
  Ref field(Ref object, std::string_view name) const {
    const auto found = find(object, name);
    if (!found) fail(Errc::corrupt, "it lacks '{}'", name);
    return *found;
  }

  std::string text(Ref ref, std::string_view what) const {
    if (!is_text(ref)) fail(Errc::corrupt, "{} is no text", what);
    return std::string(graph_.text(ref));
  }
  std::uint64_t number(Ref ref, std::string_view what) const {
    if (graph_.kind(ref) != Kind::integer || graph_.integer(ref) < 0) {
      fail(Errc::corrupt, "{} is no natural number", what);
    }
    return static_cast<std::uint64_t>(graph_.integer(ref));
  }
  Shape shape(Ref ref, std::string_view what) const { return torch::numbers_of(graph_, ref, what); }

  void read_storage(Ref root) {
    const auto entries = graph_.pairs(field(root, "storage_data"));
    for (std::size_t i = 0; i < entries.size(); i += 2) {
      const Ref name = field(entries[i], "fqn");
      if (!is_text(name)) fail(Errc::corrupt, "a name is no text");
      const auto corner = find(entries[i], "offset");
      const bool is_part = corner && graph_.kind(*corner) != Kind::none;
      const Shape start = is_part ? shape(*corner, "an offset") : Shape();
      // A long name may be there once in the file, and be that of many.
      parts_bytes_.add_name(graph_.text(name), start);
      stored_.add(graph_.text(name), is_part ? &start : nullptr, entries[i + 1]);
    }
    stored_.settle();
  }

  std::vector<PathKey> path_of(const std::string& name) const {
    const auto known = paths_ ? graph_.find(*paths_, name) : std::nullopt;
    if (!known) return {name};
    std::vector<PathKey> path;
    path.reserve(graph_.elements(*known).size());
    for (const Ref key : graph_.elements(*known)) {
      if (is_text(key)) {
        parts_bytes_.add_bytes(graph_.text(key).size());  // one text may be in many paths
        path.emplace_back(std::string(graph_.text(key)));
      } else if (graph_.kind(key) == Kind::integer) {
        path.emplace_back(graph_.integer(key));
      } else {
        return {name};
      }
    }
    if (path.empty()) path.emplace_back(name);
    return path;
  }

  DType dtype_of(const std::string& name, Ref tensor) const {
    const Ref properties = field(tensor, "properties");
    const Ref state =
        graph_.kind(properties) == Kind::object ? graph_.object(properties).state : pickle::kNoRef;
    Ref type = pickle::kNoRef;
    if (state != pickle::kNoRef && graph_.kind(state) == Kind::tuple) {
      const auto parts = graph_.elements(state);
      if (!parts.empty()) type = parts[0];
    } else if (const auto found = find(properties, "dtype")) {
      type = *found;
    }
    if (type == pickle::kNoRef || graph_.kind(type) != Kind::global) {
      fail(Errc::corrupt, "tensor '{}' has no type", name);
    }
    const auto dtype = torch::dtype_of_torch(graph_.global(type).name);
    if (!dtype) {
      fail(Errc::unsupported, "tensor '{}': cairn has no type like '{}'", name,
           graph_.global(type).qualified());
    }
    return *dtype;
  }

  bool is_transformed(Ref info) const {
    const auto transforms = find(info, "transform_descriptors");
    return transforms && !graph_.elements(*transforms).empty();
  }

  Stored part_at(const std::string& name, const Shape& corner) const {
    const auto found = stored_.find(name, &corner);
    if (!found) {
      fail(Errc::corrupt, "the part of tensor '{}' at {} is stored nowhere", name,
           to_string(corner));
    }
    if (is_transformed(*found)) {
      fail(Errc::unsupported, "tensor '{}' is compressed or otherwise transformed", name);
    }
    return stored_at(*found);
  }

  Stored stored_at(Ref info) const {
    Stored stored;
    stored.file = text(field(info, "relative_path"), "the name of a data file");
    stored.offset = number(field(info, "offset"), "the place of a part");
    stored.bytes = number(field(info, "length"), "the length of a part");
    check_file_name(stored.file);
    return stored;
  }

  TensorMetadata tensor(const std::string& name, Ref ref) {
    TensorMetadata tensor;
    tensor.name = name;
    tensor.dtype = dtype_of(name, ref);
    tensor.shape = shape(field(ref, "size"), "a tensor's shape");
    tensor.path = path_of(name);
    check_size(tensor);
    parts_bytes_.add_name(name, tensor.shape);
    parts_bytes_.add_bytes(sizeof(tensor) + tensor.path.size() * sizeof(PathKey));
    const auto chunks = graph_.elements(field(ref, "chunks"));
    std::set<Shape> corners;  // a repeated one costs nothing in the file, but here
    for (const Ref chunk : chunks) {
      Box box{shape(field(chunk, "offsets"), "a part's place"),
              shape(field(chunk, "sizes"), "a part's size")};
      check_box(tensor, box);
      if (box.elements() == 0) continue;
      if (chunks.size() > 1 && !corners.insert(box.start).second) {
        fail(Errc::corrupt, "tensor '{}' has two parts at {}", name, to_string(box.start));
      }
      parts_bytes_.add_extent(box.start.size());
      tensor.stored.push_back(part_at(name, box.start));
      tensor.boxes.push_back(std::move(box));
    }
    return tensor;
  }

  ValueMetadata value(const std::string& name) {
    const auto found = stored_.find(name, nullptr);
    if (!found) fail(Errc::corrupt, "the value '{}' is stored nowhere", name);
    ValueMetadata value{name, path_of(name), stored_at(*found), is_transformed(*found)};
    if (name == kMegatronCommon) value.path.clear();
    parts_bytes_.add_name(name, {});
    parts_bytes_.add_bytes(sizeof(value) + value.path.size() * sizeof(PathKey));
    return value;
  }

  static void check_size(const TensorMetadata& tensor) {
    try {
      element_count(tensor.shape);
    } catch (const Error& error) {
      fail(Errc::corrupt, "tensor '{}': {}", tensor.name, error.what());
    }
  }

  static void check_box(const TensorMetadata& tensor, const Box& box) {
    const std::size_t rank = tensor.shape.size();
    bool inside = box.start.size() == rank && box.count.size() == rank;
    for (std::size_t d = 0; inside && d < rank; ++d) {
      inside = box.start[d] <= tensor.shape[d] && box.count[d] <= tensor.shape[d] - box.start[d];
    }
    if (!inside) {
      fail(Errc::corrupt, "tensor '{}' of shape {} has a part {} that is not in it", tensor.name,
           to_string(tensor.shape), to_string(box));
    }
  }

  const Graph& graph_;
  TableBytes& parts_bytes_;
  StoredIndex stored_;
  std::optional<Ref> paths_;  // a dict: of each name, its keys
};

}  // namespace

Metadata read_metadata(std::vector<std::byte> bytes, TableBytes& parts_bytes) {
  const pickle::Limits limits = pickle::limits_of_table(bytes.size());
  const Graph graph = pickle::parse(std::move(bytes), "its .metadata", limits);
  return Reader(graph, parts_bytes).read();
}

void check_boxes(const TensorMetadata& tensor) {
  if (tensor.boxes.size() == 1 && tensor.boxes[0].count == tensor.shape) return;
  TensorEntry entry;
  entry.name = tensor.name;
  entry.dtype = tensor.dtype;
  entry.shape = tensor.shape;
  entry.placement = Placement::Kind::block;
  for (const Box& box : tensor.boxes) {
    entry.extents.emplace_back();
    entry.extents.back().box = box;
  }
  try {
    check_tiling(entry);
  } catch (const Error& error) {
    fail(Errc::corrupt, "{}", error.what());
  }
}

bool are_tiling(const TensorMetadata& tensor) {
  try {
    check_boxes(tensor);
    return true;
  } catch (const Error&) {
    return false;
  }
}

void check_file_name(std::string_view file) {
  if (leaves_directory(file)) {
    fail(Errc::unsafe, "it names the data file '{}', which is not in its directory", file);
  }
}

}  // namespace cairn::detail::dcp
