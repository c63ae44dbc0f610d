#include "formats/torch/storages.hpp"

#include <array>
#include <utility>

#include "base/throw.hpp"

namespace cairn::detail::torch {
namespace {

using pickle::Class;
using pickle::Graph;
using pickle::Kind;
using pickle::Ref;

using Name = std::pair<std::string_view, DType>;

constexpr std::array kStorageNames{
    Name{"DoubleStorage", DType::f64},
    Name{"FloatStorage", DType::f32},
    Name{"HalfStorage", DType::f16},
    Name{"BFloat16Storage", DType::bf16},
    Name{"LongStorage", DType::i64},
    Name{"IntStorage", DType::i32},
    Name{"ShortStorage", DType::i16},
    Name{"CharStorage", DType::i8},
    Name{"ByteStorage", DType::u8},
    Name{"BoolStorage", DType::boolean},
    Name{"ComplexDoubleStorage", DType::c128},
    Name{"ComplexFloatStorage", DType::c64},
};

constexpr std::array kDtypeNames{
    Name{"float64", DType::f64},
    Name{"double", DType::f64},
    Name{"float32", DType::f32},
    Name{"float", DType::f32},
    Name{"float16", DType::f16},
    Name{"half", DType::f16},
    Name{"bfloat16", DType::bf16},
    Name{"float8_e4m3fn", DType::f8_e4m3fn},
    Name{"float8_e5m2", DType::f8_e5m2},
    Name{"int64", DType::i64},
    Name{"long", DType::i64},
    Name{"int32", DType::i32},
    Name{"int", DType::i32},
    Name{"int16", DType::i16},
    Name{"short", DType::i16},
    Name{"int8", DType::i8},
    Name{"uint8", DType::u8},
    Name{"uint16", DType::u16},
    Name{"uint32", DType::u32},
    Name{"uint64", DType::u64},
    Name{"bool", DType::boolean},
    Name{"complex128", DType::c128},
    Name{"cdouble", DType::c128},
    Name{"complex64", DType::c64},
    Name{"cfloat", DType::c64},
    Name{"complex32", DType::c32},
    Name{"chalf", DType::c32},
};

template <std::size_t N>
std::optional<DType> look_up(const std::array<Name, N>& names, std::string_view name) {
  for (const auto& [known, dtype] : names) {
    if (known == name) return dtype;
  }
  return std::nullopt;
}

template <std::size_t N>
std::string_view name_in(const std::array<Name, N>& names, DType dtype) {
  for (const auto& [name, known] : names) {
    if (known == dtype) return name;
  }
  return {};
}

// A few bytes of a pickle name a storage once more: large models do that once for each tensor.
constexpr std::size_t kMostViews = 1'000'000;

/// Items times item size. Errors: corrupt.
std::uint64_t bytes_of(const Graph& graph, Ref count, std::uint64_t item) {
  const std::int64_t items = graph.kind(count) == Kind::integer ? graph.integer(count) : -1;
  std::uint64_t bytes = 0;
  if (items < 0 || __builtin_mul_overflow(static_cast<std::uint64_t>(items), item, &bytes)) {
    fail(Errc::corrupt, "a storage has no sensible size");
  }
  return bytes;
}

/// What ("storage", type, key, location, count[, view]) says.
Storage storage_of(const Graph& graph, std::span<const Ref> id) {
  const bool fits = (id.size() == 5 || id.size() == 6) && graph.is_text(id[0], "storage") &&
                    graph.kind(id[1]) == Kind::global && graph.kind(id[2]) == Kind::text;
  if (!fits) fail(Errc::corrupt, "something outside the pickle is no storage of PyTorch");
  Storage storage;
  const pickle::Global& type = graph.global(id[1]);
  if (type.cls != Class::torch_storage) {
    fail(Errc::unsupported, "'{}' is no storage type of PyTorch", type.qualified());
  }
  storage.untyped = type.name == "UntypedStorage";
  if (const auto dtype = look_up(kStorageNames, type.name)) {
    storage.dtype = *dtype;
  } else if (!storage.untyped) {
    fail(Errc::unsupported,
         "cairn has no type like PyTorch's '{}'; convert such tensors (of quantized ones, save "
         "dequantize())",
         type.name);
  }
  storage.key = graph.text(id[2]);
  if (storage.key.empty() || storage.key.find_first_of("/\\") != std::string_view::npos) {
    fail(Errc::unsafe, "a storage's name '{}' is a path", storage.key);
  }
  storage.bytes = bytes_of(graph, id[4], item_bytes(storage.dtype));
  return storage;
}

/// The part that (key, first, count) is of a storage.
StorageView part_of(const Graph& graph, const Storage& storage, std::span<const Ref> part) {
  if (part.size() != 3) fail(Errc::corrupt, "a part of storage '{}' is broken", storage.key);
  StorageView view;
  view.first = bytes_of(graph, part[1], item_bytes(storage.dtype));
  view.bytes = bytes_of(graph, part[2], item_bytes(storage.dtype));
  if (view.first > storage.bytes || view.bytes > storage.bytes - view.first) {
    fail(Errc::corrupt, "a part of storage '{}' leaves it", storage.key);
  }
  return view;
}

}  // namespace

Storages storages_of(const Graph& graph) {
  Storages result;
  std::unordered_map<std::string_view, std::size_t> by_key;
  for (Ref ref = 0; ref < graph.size(); ++ref) {
    if (graph.kind(ref) != Kind::persistent) continue;
    if (result.views.size() == kMostViews) {
      fail(Errc::unsafe, "it names storages more than {} times", kMostViews);
    }
    const Ref id = graph.persistent_id(ref);
    if (graph.kind(id) != Kind::tuple) {
      fail(Errc::corrupt, "something outside the pickle is no storage of PyTorch");
    }
    const auto parts = graph.elements(id);
    const Storage storage = storage_of(graph, parts);
    const auto [known, is_new] = by_key.try_emplace(storage.key, result.all.size());
    if (is_new) result.all.push_back(storage);
    const Storage& first = result.all[known->second];
    if (first.dtype != storage.dtype || first.untyped != storage.untyped ||
        first.bytes != storage.bytes) {
      fail(Errc::corrupt, "storage '{}' has two types or sizes", storage.key);
    }
    StorageView view{0, 0, storage.bytes};
    if (parts.size() == 6 && graph.kind(parts[5]) != Kind::none) {
      view = part_of(graph, storage, graph.elements(parts[5]));
    }
    view.storage = known->second;
    result.views.emplace(ref, view);
  }
  return result;
}

std::optional<DType> dtype_of_torch(std::string_view name) { return look_up(kDtypeNames, name); }

std::string_view torch_name(DType dtype) { return name_in(kDtypeNames, dtype); }

std::string_view storage_name(DType dtype) { return name_in(kStorageNames, dtype); }

}  // namespace cairn::detail::torch
