#include "formats/torch/writer.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <string_view>
#include <utility>

#include "base/crc32.hpp"
#include "base/digest.hpp"
#include "base/throw.hpp"
#include "formats/pickle/pickler.hpp"
#include "formats/torch/storages.hpp"
#include "formats/torch/values.hpp"

namespace cairn::detail::torch {
namespace {

constexpr std::string_view kTop = "archive";

/// A row of a dtype's table, as the types of PyTorch's own storages.
class Writing {
 public:
  explicit Writing(const NewFile& file) : file_(file) {}

  std::string pickle() {
    write(Tree::kRoot);
    return out_.take();
  }

 private:
  void write(Tree::Node node);
  void write_branch(const Tree::Entry& entry);
  void write_list(const std::vector<Tree::Node>& children);
  void write_leaf(const Json& leaf);
  void write_elements(const Json& leaf);
  void write_json(const Json& value);
  void write_key(const PathKey& key);
  void write_numbers(const Shape& numbers);
  void write_tensor(std::size_t storage, DType dtype, std::uint64_t bytes, const NewTensor& view);
  std::int64_t position(Tree::Node node) const;

  const NewFile& file_;
  pickle::Pickler out_;
};

void Writing::write(Tree::Node node) {
  const Tree::Entry& entry = file_.tree.at(node);
  switch (entry.kind) {
    case Tree::Kind::branch:
    case Tree::Kind::dict:
    case Tree::Kind::tuple:
      return write_branch(entry);
    case Tree::Kind::tensor: {
      const NewTensor& tensor = file_.tensors[entry.number];
      const NewStorage& storage = file_.storages[tensor.storage];
      return write_tensor(tensor.storage, storage.dtype, storage.bytes, tensor);
    }
    case Tree::Kind::array: {
      const NewArray& array = file_.arrays[entry.number];
      const NewTensor view{0, 0, array.shape, dense_strides(array.shape)};
      return write_tensor(file_.storages.size() + entry.number, array.dtype, array.bytes.size(),
                          view);
    }
    case Tree::Kind::leaf:
      return write_leaf(entry.value);
    case Tree::Kind::value:
      return write_json(entry.value);
  }
}

/// The number that a branch's part has as its key, or -1.
std::int64_t Writing::position(Tree::Node node) const {
  const auto* number = std::get_if<std::int64_t>(&file_.tree.at(node).key);
  return number == nullptr ? -1 : *number;
}

void Writing::write_branch(const Tree::Entry& entry) {
  std::vector<Tree::Node> children = entry.children;
  // Values that could not be written leave gaps in a list, but few.
  const auto most = static_cast<std::int64_t>(2 * children.size() + 16);
  const bool numbered = std::all_of(children.begin(), children.end(), [&](Tree::Node child) {
    return position(child) >= 0 && position(child) < most;
  });
  if (entry.kind != Tree::Kind::dict && numbered && !children.empty()) {
    std::sort(children.begin(), children.end(),
              [&](Tree::Node a, Tree::Node b) { return position(a) < position(b); });
    if (entry.kind == Tree::Kind::branch) out_.empty_list();
    out_.mark();
    write_list(children);
    return entry.kind == Tree::Kind::branch ? out_.append() : out_.tuple();
  }
  out_.empty_dict();
  out_.mark();
  for (const Tree::Node child : children) {
    write_key(file_.tree.at(child).key);
    write(child);
  }
  out_.set_items();
}

void Writing::write_list(const std::vector<Tree::Node>& children) {
  std::int64_t next = 0;
  for (const Tree::Node child : children) {
    for (; next < position(child); ++next) out_.none();
    write(child);
    ++next;
  }
}

void Writing::write_key(const PathKey& key) {
  if (const auto* text = std::get_if<std::string>(&key)) return out_.text(*text);
  out_.integer(std::get<std::int64_t>(key));
}

void Writing::write_leaf(const Json& leaf) {
  const std::string type = leaf.at("type").get<std::string>();
  const Json& value = leaf.at("value");
  if (const auto bits = leaf.find("bits"); bits != leaf.end()) {
    const std::string text = bits->get<std::string>();
    std::uint64_t number = 0;
    std::from_chars(text.data(), text.data() + text.size(), number, 16);
    return out_.real(std::bit_cast<double>(number));
  }
  const bool integer =
      type == "int" || (type.starts_with("numpy.") && type.find("int") != std::string::npos);
  if (integer && value.is_string()) return out_.integer(value.get<std::string>());
  if (type == "torch.dtype") {
    const std::string name = value.get<std::string>();
    return out_.global("torch", std::string_view(name).substr(name.find('.') + 1));
  }
  if (type == "torch.Size" || type == "tuple") {
    if (type == "torch.Size") {
      out_.global("torch", "Size");
      out_.mark();
    }
    out_.mark();
    write_elements(leaf);
    out_.tuple();
    if (type == "tuple") return;
    out_.tuple();
    return out_.reduce();
  }
  if (!value.is_array()) return write_json(value);
  out_.empty_list();  // a set, too
  out_.mark();
  write_elements(leaf);
  out_.append();
}

/// Of elements that the list of values does not say all about, `parts` does.
void Writing::write_elements(const Json& leaf) {
  const Json& values = leaf.at("value");
  const auto parts = leaf.find("parts");
  std::size_t next = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bool told = parts == leaf.end() || next == parts->size() || parts->at(next).at(0) != i;
    if (told) {
      write_json(values[i]);
    } else {
      write_leaf(parts->at(next++).at(1));
    }
  }
}

void Writing::write_json(const Json& value) {
  switch (value.type()) {
    case Json::value_t::boolean:
      return out_.boolean(value.get<bool>());
    case Json::value_t::number_integer:
      return out_.integer(value.get<std::int64_t>());
    case Json::value_t::number_unsigned:
      return out_.integer(std::to_string(value.get<std::uint64_t>()));
    case Json::value_t::number_float:
      return out_.real(value.get<double>());
    case Json::value_t::string:
      return out_.text(value.get_ref<const std::string&>());
    case Json::value_t::array:
      out_.empty_list();
      out_.mark();
      for (const Json& part : value) write_json(part);
      return out_.append();
    case Json::value_t::object:
      out_.empty_dict();
      out_.mark();
      for (const auto& [key, part] : value.items()) {
        out_.text(key);
        write_json(part);
      }
      return out_.set_items();
    default:
      return out_.none();
  }
}

void Writing::write_numbers(const Shape& numbers) {
  out_.mark();
  for (const std::uint64_t number : numbers) out_.integer(std::to_string(number));
  out_.tuple();
}

/// torch._utils._rebuild_tensor_v2(storage, first, shape, strides, requires_grad, hooks), or v3,
/// which also has the dtype, where PyTorch has no storage of that type.
void Writing::write_tensor(std::size_t storage, DType dtype, std::uint64_t bytes,
                           const NewTensor& view) {
  const std::string_view type = storage_name(dtype);
  out_.global("torch._utils", type.empty() ? "_rebuild_tensor_v3" : "_rebuild_tensor_v2");
  out_.mark();
  out_.mark();
  out_.shared_text("storage");
  if (type.empty()) {
    out_.global("torch.storage", "UntypedStorage");
  } else {
    out_.global("torch", type);
  }
  out_.text(std::to_string(storage));
  out_.shared_text("cpu");
  out_.integer(std::to_string(type.empty() ? bytes : bytes / item_bytes(dtype)));
  out_.tuple();
  out_.persistent();
  out_.integer(std::to_string(view.first));
  write_numbers(view.shape);
  write_numbers(view.strides);
  out_.boolean(false);
  out_.global("collections", "OrderedDict");
  out_.empty_tuple();
  out_.reduce();
  if (type.empty()) out_.global("torch", torch_name(dtype));
  out_.tuple();
  out_.reduce();
}

/// What tells files apart: 20 digits each of the names and of the bytes.
std::string serialization_id(const TorchLayout& layout, std::span<const std::uint32_t> crcs) {
  Digester names;
  Digester bytes;
  for (const auto& [offset, text] : layout.contents) {
    names.update(offset);
    bytes.update(text);
  }
  for (const std::uint32_t crc : crcs) bytes.update(std::uint64_t{crc});
  return fmt::format("{:020}{:020}", names.value(), bytes.value());
}

std::uint32_t crc_of(const std::string& text) {
  return crc32_update(0, std::as_bytes(std::span(text)));
}

}  // namespace

Shape dense_strides(const Shape& shape) {
  Shape strides(shape.size());
  std::uint64_t stride = 1;
  for (std::size_t d = shape.size(); d-- > 0;) {
    strides[d] = stride;
    stride *= std::max<std::uint64_t>(shape[d], 1);
  }
  return strides;
}

TorchLayout lay_out_torch(const NewFile& file) {
  TorchLayout layout;
  const auto add = [&](std::string_view name, std::string bytes) {
    const std::uint64_t offset = layout.zip.add(fmt::format("{}/{}", kTop, name), bytes.size());
    layout.contents.emplace_back(offset, std::move(bytes));
  };
  add("data.pkl", Writing(file).pickle());
  add("byteorder", "little");
  for (const NewStorage& storage : file.storages) {
    layout.members.push_back(layout.zip.size());
    layout.offsets.push_back(
        layout.zip.add(fmt::format("{}/data/{}", kTop, layout.offsets.size()), storage.bytes));
  }
  for (std::size_t i = 0; i < file.arrays.size(); ++i) {
    add(fmt::format("data/{}", file.storages.size() + i), file.arrays[i].bytes);
  }
  add("version", "3\n");
  add(".data/serialization_id", std::string(40, '0'));
  return layout;
}

std::vector<ZipLayout::Piece> other_bytes(const TorchLayout& layout,
                                          std::span<const std::uint32_t> crcs) {
  std::vector<std::pair<std::uint64_t, std::string>> contents = layout.contents;
  contents.back().second = serialization_id(layout, crcs);
  // The members that are no storages have the other positions, in their order.
  std::vector<std::uint32_t> of_members(layout.zip.size());
  std::vector<bool> is_storage(layout.zip.size());
  for (std::size_t s = 0; s < crcs.size(); ++s) {
    of_members[layout.members[s]] = crcs[s];
    is_storage[layout.members[s]] = true;
  }
  std::size_t next = 0;
  for (std::size_t m = 0; m < of_members.size(); ++m) {
    if (!is_storage[m]) of_members[m] = crc_of(contents[next++].second);
  }
  std::vector<ZipLayout::Piece> pieces = layout.zip.pieces(of_members);
  for (auto& [offset, text] : contents) pieces.push_back({offset, std::move(text)});
  std::sort(pieces.begin(), pieces.end(),
            [](const auto& a, const auto& b) { return a.offset < b.offset; });
  return pieces;
}

}  // namespace cairn::detail::torch
