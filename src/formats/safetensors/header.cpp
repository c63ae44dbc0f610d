#include "formats/safetensors/header.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <utility>

#include "base/throw.hpp"
#include "formats/safetensors/dtypes.hpp"
#include "formats/strict_json.hpp"
#include "formats/table_bytes.hpp"

namespace cairn::detail {
namespace {

constexpr std::string_view kMetadata = "__metadata__";
constexpr std::size_t kMostDimensions = 64;  // PyTorch's own limit

class HeaderReader final : public JsonReader {
 public:
  HeaderReader(SafetensorsHeader& header, std::uint64_t data_start, std::uint64_t data_bytes,
               TableBytes& table_bytes)
      : header_(header),
        table_bytes_(table_bytes),
        data_start_(data_start),
        data_bytes_(data_bytes) {}

  void on_object() override {
    switch (at_) {
      case At::outside:
        at_ = At::names;
        return;
      case At::names:
        at_ = name_ == kMetadata ? At::metadata : At::tensor;
        if (at_ == At::metadata && header_.metadata) twice(kMetadata);
        if (at_ == At::metadata) header_.metadata.emplace();
        return;
      default:
        refuse("an object");
    }
  }

  void on_object_end() override {
    if (at_ == At::tensor) add_tensor();
    at_ = at_ == At::names ? At::outside : At::names;
    key_.clear();
  }

  void on_key(std::string& text) override {
    if (at_ == At::names) {
      name_ = std::move(text);
      dtype_.reset();
      shape_.reset();
      offsets_.reset();
      if (name_.find('\0') != std::string::npos) {
        fail(Errc::unsafe, "the name of a tensor contains NUL, where other programs end it");
      }
      return;
    }
    key_ = std::move(text);
    const bool known =
        at_ == At::metadata || key_ == "dtype" || key_ == "shape" || key_ == "data_offsets";
    if (!known) fail(Errc::unsupported, "{} has a key '{}' that is not known", place(), key_);
  }

  void on_text(std::string& text) override {
    if (at_ == At::metadata) {
      header_.metadata->emplace_back(key_, std::move(text));
    } else if (at_ == At::tensor && key_ == "dtype") {
      if (dtype_) twice(key_);
      dtype_ = safetensors_dtype(text);
      if (!dtype_) {
        fail(Errc::unsupported, "{} has dtype '{}', which cairn does not support", place(), text);
      }
    } else {
      refuse("a text");
    }
  }

  void on_array() override {
    if (at_ != At::tensor) refuse("a list");
    if (key_ == "shape") {
      if (std::exchange(shape_, Shape()).has_value()) twice(key_);
      at_ = At::shape;
    } else if (key_ == "data_offsets") {
      if (std::exchange(offsets_, Shape()).has_value()) twice(key_);
      at_ = At::offsets;
    } else {
      refuse("a list");
    }
  }
  void on_array_end() override { at_ = At::tensor; }

  void on_natural(std::uint64_t value) override {
    if (at_ != At::shape && at_ != At::offsets) refuse("a number");
    Shape& numbers = at_ == At::shape ? *shape_ : *offsets_;
    if (numbers.size() == kMostDimensions) {
      fail(Errc::unsupported, "{} has more than {} numbers in its {}", place(), kMostDimensions,
           key_);
    }
    numbers.push_back(value);
  }

 protected:
  std::string place() const override {
    if (at_ == At::outside || at_ == At::names) return "the header";
    return at_ == At::metadata ? std::string(kMetadata) : fmt::format("tensor '{}'", name_);
  }

 private:
  enum class At { outside, names, tensor, shape, offsets, metadata };

  [[noreturn]] void twice(std::string_view what) const {
    fail(Errc::corrupt, "{} has '{}' twice", place(), what);
  }

  std::uint64_t bytes_of_tensor() const {
    try {
      return element_count(*shape_) * item_bytes(*dtype_);
    } catch (const Error& error) {
      fail(Errc::corrupt, "tensor '{}': {}", name_, error.what());
    }
  }

  void add_tensor() {
    if (!dtype_ || !shape_ || !offsets_ || offsets_->size() != 2) {
      fail(Errc::corrupt, "tensor '{}' needs dtype, shape, and data_offsets of two numbers", name_);
    }
    const std::uint64_t begin = offsets_->front();
    const std::uint64_t end = offsets_->back();
    if (begin > end || end > data_bytes_) {
      fail(Errc::corrupt, "tensor '{}' lies at bytes {} to {} of {}", name_, begin, end,
           data_bytes_);
    }
    if (end - begin != bytes_of_tensor()) {
      fail(Errc::corrupt, "tensor '{}' is {} {} but has {} bytes", name_, to_string(*dtype_),
           to_string(*shape_), end - begin);
    }
    TensorEntry tensor;
    tensor.name = std::move(name_);
    tensor.dtype = *dtype_;
    tensor.shape = std::move(*shape_);
    tensor.offset = data_start_ + begin;
    Extent whole;
    whole.offset = tensor.offset;
    whole.box = Box::whole(tensor.shape);
    if (end != begin) tensor.extents.push_back(std::move(whole));
    table_bytes_.add(tensor);
    header_.tensors.push_back(std::move(tensor));
  }

  SafetensorsHeader& header_;
  TableBytes& table_bytes_;
  const std::uint64_t data_start_;
  const std::uint64_t data_bytes_;
  At at_ = At::outside;
  std::string name_;
  std::string key_;
  std::optional<DType> dtype_;
  std::optional<Shape> shape_;
  std::optional<Shape> offsets_;
};

template <class List, class F>
void check_once(const List& list, std::string_view what, F&& name_of) {
  std::vector<std::string_view> names;
  names.reserve(list.size());
  for (const auto& each : list) names.push_back(name_of(each));
  if (const auto twice = TensorNames(std::move(names)).duplicate()) {
    fail(Errc::corrupt, "its header lists {} '{}' twice", what, *twice);
  }
}

/// Each byte of the data belongs to one tensor.
void check_tiling(const std::vector<TensorEntry>& tensors, std::uint64_t data_start,
                  std::uint64_t data_bytes) {
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), 0);
  const auto end_of = [&](std::size_t i) { return tensors[i].offset + tensors[i].bytes(); };
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::pair(tensors[a].offset, end_of(a)) < std::pair(tensors[b].offset, end_of(b));
  });
  std::uint64_t end = data_start;
  for (const std::size_t i : order) {
    if (tensors[i].offset != end) {
      fail(Errc::corrupt, "{} bytes before tensor '{}' belong to {}",
           tensors[i].offset < end ? end - tensors[i].offset : tensors[i].offset - end,
           tensors[i].name, tensors[i].offset < end ? "another tensor, too" : "no tensor");
    }
    end = end_of(i);
  }
  if (end != data_start + data_bytes) {
    fail(Errc::corrupt, "the last {} bytes belong to no tensor", data_start + data_bytes - end);
  }
}

}  // namespace

SafetensorsHeader read_safetensors_header(std::string_view text, std::uint64_t data_start,
                                          std::uint64_t data_bytes, TableBytes& table_bytes) {
  if (!text.starts_with('{')) fail(Errc::corrupt, "its header does not start with a brace");
  SafetensorsHeader header;
  HeaderReader reader(header, data_start, data_bytes, table_bytes);
  try {
    read_json(text, reader);
  } catch (const Error& error) {
    fail(error.code(), "its header: {}", error.what());
  }
  check_once(header.tensors, "tensor",
             [](const TensorEntry& tensor) -> std::string_view { return tensor.name; });
  if (header.metadata) {
    check_once(*header.metadata, "metadata",
               [](const auto& pair) -> std::string_view { return pair.first; });
  }
  check_tiling(header.tensors, data_start, data_bytes);
  return header;
}

}  // namespace cairn::detail
