#include "formats/torch/walk.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <unordered_set>
#include <utility>

#include "base/base64.hpp"
#include "base/throw.hpp"
#include "formats/table_bytes.hpp"
#include "formats/torch/facts.hpp"
#include "formats/torch/json_list.hpp"
#include "formats/torch/module.hpp"
#include "formats/torch/numpy.hpp"
#include "formats/torch/repr.hpp"
#include "formats/torch/tensor.hpp"
#include "formats/torch/values.hpp"
#include "formats/torch/weight.hpp"

namespace cairn::detail::torch {
namespace {

using pickle::Class;
using pickle::Graph;
using pickle::Kind;
using pickle::kNoRef;
using pickle::Ref;

constexpr std::size_t kMostDepth = 1000;
// A value of a flat list takes 16 bytes as JSON, twice that while the list grows.
constexpr std::size_t kMostValues = 1'000'000;

class Walk {
 public:
  Walk(const Graph& graph, const Storages& storages, TableBytes& table_bytes, WalkBudget& budget,
       WalkStart start)
      : graph_(graph),
        storages_(storages),
        table_bytes_(table_bytes),
        budget_(budget),
        path_(std::move(start.path)),
        but_(start.but),
        of_storage_(storages.all.size()) {}

  Contents run();

 private:
  /// A container on the way from the root.
  struct Level {
    Ref container = kNoRef;
    std::span<const Ref> parts;  // of a mapping: key, value, key, value, ...
    bool mapping = false;
    std::size_t next = 0;
  };

  void count_step();
  bool visit(Ref ref);
  bool visit_object(Ref ref, bool told);
  Json record_of(Ref ref);
  void tell_kind(Ref ref);
  void leave_out(Ref ref);
  std::string class_of(Ref ref) const;
  bool affords(Ref ref);
  void spend(std::uint64_t work);
  bool enter(Ref container, std::span<const Ref> parts, bool mapping);
  std::optional<PathKey> key_of(Ref key);
  bool is_left_out(const PathKey& key) const {
    const auto* text = std::get_if<std::string>(&key);
    return text != nullptr && std::find(but_.begin(), but_.end(), *text) != but_.end();
  }
  void add_tensor(Ref ref);
  void add_module(Ref ref);
  void add_array(const NumpyArray& array);
  void add(JsonList& list, Json entry);
  void find_aliases();

  const Graph& graph_;
  const Storages& storages_;
  TableBytes& table_bytes_;
  WalkBudget& budget_;
  std::vector<Level> way_;
  std::unordered_set<Ref> on_way_;
  std::vector<PathKey> path_;
  std::span<const std::string_view> but_;
  bool full_ = false;        // what is told, but for
  bool kinds_full_ = false;  // what containers are
  std::size_t left_out_ = 0;
  ListRoom room_{table_bytes_};
  JsonList objects_{room_};
  JsonList opaque_{room_};
  JsonList arrays_{room_};
  JsonList containers_{room_};
  std::vector<std::vector<std::size_t>> of_storage_;  // positions of its tensors
  Contents contents_;
};

Contents Walk::run() {
  visit(graph_.root());
  while (!way_.empty()) {
    Level& level = way_.back();
    if (level.next >= level.parts.size()) {
      on_way_.erase(level.container);
      way_.pop_back();
      if (!way_.empty()) path_.pop_back();
      continue;
    }
    std::optional<PathKey> key;
    if (level.mapping) {
      key = key_of(level.parts[level.next++]);
    } else {
      key = static_cast<std::int64_t>(level.next);
    }
    const Ref value = level.parts[level.next++];
    if (!key || (way_.size() == 1 && is_left_out(*key))) continue;
    path_.push_back(std::move(*key));
    if (!visit(value)) path_.pop_back();
  }
  find_aliases();
  contents_.objects = objects_.take();
  contents_.opaque = opaque_.take();
  contents_.arrays = arrays_.take();
  contents_.containers = containers_.take();
  if (full_ || left_out_ > 0) {
    contents_.warnings.emplace_back(
        "it holds more, or larger, values beside its tensors than cairn lists; some are left out");
  }
  if (kinds_full_) {
    contents_.warnings.emplace_back(
        "it holds more tuples, and dicts with numbers as keys, than cairn lists; the last ones are "
        "taken for lists");
  }
  return std::move(contents_);
}

/// A mapping's key, where it is a text or an integer, or by its name a class; others are reported,
/// and a class is, too.
std::optional<PathKey> Walk::key_of(Ref key) {
  if (graph_.kind(key) == Kind::text) {
    spend(graph_.text(key).size());
    return PathKey(std::string(graph_.text(key)));
  }
  if (graph_.kind(key) == Kind::integer) return PathKey(graph_.integer(key));
  if (graph_.kind(key) == Kind::global) {  // callbacks of Lightning, up to 1.4
    std::string name = graph_.global(key).qualified();
    spend(name.size());
    add(opaque_, {{"key", repr_of(graph_, key)}});
    return PathKey(std::move(name));
  }
  count_step();  // it leads nowhere, but may come again and again
  add(opaque_, {{"key", affords(key) ? repr_of(graph_, key) : "..."}});
  return std::nullopt;
}

void Walk::spend(std::uint64_t work) {
  if (work > budget_.work) {
    fail(Errc::unsafe, "it holds large values to which too many places refer");
  }
  budget_.work -= work;
}

/// Whether there is room to tell of a value: a small one, or few, may be there many times.
bool Walk::affords(Ref ref) {
  if (full_) {
    spend(graph_.elements(ref).size());
    return false;
  }
  const Weight weight = weight_of(graph_, ref, kMostListBytes);
  const bool fits = weight.bytes <= kMostListBytes && weight.values <= kMostValues;
  const bool built = fits && (is_closed(graph_, ref) || graph_.kind(ref) == Kind::object);
  spend(weight.values + (built ? weight.bytes : 0));
  return fits;
}

void Walk::count_step() {
  if (budget_.steps == 0) {
    fail(Errc::unsafe, "it leads to more than {} values, by few that refer to each other",
         WalkBudget().steps);
  }
  --budget_.steps;
}

/// Takes a value in, or enters it when it is a container; tells whether it did the latter.
bool Walk::visit(Ref ref) {
  count_step();
  ref = plain_of(graph_, ref);
  if (is_tensor(graph_, ref)) {
    add_tensor(ref);
    return false;
  }
  const bool told = affords(ref);
  if (!told && is_closed(graph_, ref)) {
    leave_out(ref);
    return false;
  }
  if (auto leaf = told ? leaf_of(graph_, ref) : std::nullopt) {
    add(objects_, std::move(*leaf));
    return false;
  }
  tell_kind(ref);
  switch (graph_.kind(ref)) {
    case Kind::dict:
      return enter(ref, graph_.pairs(ref), true);
    case Kind::list:
    case Kind::tuple:
      return enter(ref, graph_.elements(ref), false);
    case Kind::object:
      return visit_object(ref, told);
    default:
      add(opaque_, opaque_of(graph_, ref));
      return false;
  }
}

/// Paths alone look the same below a list, a tuple and a dict of numbers.
void Walk::tell_kind(Ref ref) {
  const char* kind = graph_.kind(ref) == Kind::tuple ? "tuple" : nullptr;
  const auto pairs = graph_.pairs(ref);
  std::size_t i = 0;
  while (kind == nullptr && i < pairs.size()) {
    if (graph_.kind(pairs[i]) == Kind::integer) kind = "dict";
    i += 2;
  }
  spend(i);
  if (kind == nullptr || kinds_full_) return;
  spend(path_.size());
  kinds_full_ = !containers_.add({{"path", json_of(path_)}, {"kind", kind}});
}

/// Tells of a value that is too large to be told, or of any where the lists are full.
void Walk::leave_out(Ref ref) {
  ++left_out_;
  add(opaque_, {{"class", class_of(ref)}, {"too_large", true}});
}

/// What Python calls the class of a value; of objects it is their own.
std::string Walk::class_of(Ref ref) const {
  switch (graph_.kind(ref)) {
    case Kind::text:
      return "builtins.str";
    case Kind::bytes:
      return "builtins.bytes";
    case Kind::bytearray:
      return "builtins.bytearray";
    case Kind::tuple:
      return "builtins.tuple";
    case Kind::list:
      return "builtins.list";
    case Kind::set:
      return "builtins.set";
    case Kind::frozenset:
      return "builtins.frozenset";
    case Kind::object: {
      const Ref callee = graph_.object(ref).callee;
      if (graph_.kind(callee) == Kind::global) return graph_.global(callee).qualified();
      return "builtins.object";
    }
    default:
      return "builtins.object";
  }
}

/// All that is told of an object, of whose state nothing is listed elsewhere.
Json Walk::record_of(Ref ref) {
  Json record = opaque_of(graph_, ref);
  if (has_open_state(graph_, ref)) return record;
  std::uint64_t work = 0;
  Json nested = nested_state(graph_, ref, work);
  spend(work);
  if (!nested.empty()) record["nested"] = std::move(nested);
  return record;
}

/// An object stays closed, unless it is a container by another name.
bool Walk::visit_object(Ref ref, bool told) {
  if (told) {
    if (const auto array = numpy_array_of(graph_, ref); array && array->dtype) {
      add_array(*array);
      return false;
    }
    add(opaque_, record_of(ref));
  }
  if (!told) leave_out(ref);
  if (is_module(graph_, ref)) {
    add_module(ref);
    return false;
  }
  const pickle::Object& object = graph_.object(ref);
  const auto pairs = graph_.pairs_of(object);
  if (!pairs.empty()) return enter(ref, pairs, true);  // a dict's subclass
  const auto items = graph_.items_of(object);
  if (!items.empty()) return enter(ref, items, false);  // a list's
  if (has_open_state(graph_, ref))
    return enter(ref, graph_.pairs(attributes_of(graph_, ref)), true);
  const auto args = graph_.elements(object.args);
  // One value alone may as well be what a number's or text's subclass is made of.
  const bool parts = args.size() > 1 || std::any_of(args.begin(), args.end(), [&](Ref part) {
                       return graph_.kind(part) == Kind::object || !graph_.elements(part).empty();
                     });
  if (!object.called && object.state == kNoRef && parts)
    return enter(ref, args, false);  // a tuple's
  return false;
}

bool Walk::enter(Ref container, std::span<const Ref> parts, bool mapping) {
  if (!on_way_.insert(container).second) return false;  // it holds itself
  if (way_.size() >= kMostDepth) {
    fail(Errc::unsafe, "its values are nested deeper than {}", kMostDepth);
  }
  way_.push_back({container, parts, mapping, 0});
  return true;
}

void Walk::add(JsonList& list, Json entry) {
  if (full_) return;
  Json with_path = {{"path", json_of(path_)}};
  with_path.update(entry);
  full_ = !list.add(with_path);
}

void Walk::add_tensor(Ref ref) {
  TensorEntry entry;
  entry.name = name_of(path_);
  if (entry.name.find('\0') != std::string::npos) {
    fail(Errc::unsafe, "a tensor's name holds NUL, where other programs cut it off");
  }
  Tensor tensor;
  try {
    tensor = tensor_of(graph_, ref, storages_);
  } catch (const Error& error) {
    fail(error.code(), "tensor '{}': {}", entry.name, error.what());
  }
  entry.path = path_;
  entry.dtype = tensor.dtype;
  entry.shape = tensor.shape;
  if (element_count(tensor.shape) != 0) {
    entry.offset = storages_.all[tensor.storage].offset + tensor.first;
    Extent extent;
    extent.offset = entry.offset;
    extent.box = Box::whole(entry.shape);
    entry.extents.push_back(std::move(extent));
    of_storage_[tensor.storage].push_back(contents_.tensors.size());
    if (!tensor.contiguous) {
      entry.layout = Layout::strided;
      entry.strides = tensor.strides;
    }
  }
  table_bytes_.add(entry);
  contents_.tensors.push_back(std::move(entry));
}

void Walk::add_module(Ref ref) {
  std::uint64_t work = 0;
  const auto parts = module_tensors(graph_, ref, work);
  spend(work);
  for (const ModuleTensor& part : parts) {
    path_.emplace_back(part.name);
    add_tensor(part.tensor);
    path_.pop_back();
  }
}

void Walk::add_array(const NumpyArray& array) {
  add(arrays_, {{"dtype", to_string(*array.dtype)},
                {"shape", array.shape},
                {"base64", base64_of(array.bytes)}});
}

void Walk::find_aliases() {
  for (const std::vector<std::size_t>& tensors : of_storage_) {
    if (tensors.size() < 2) continue;
    auto& names = contents_.aliases.emplace_back();
    for (const std::size_t t : tensors) names.push_back(contents_.tensors[t].name);
    std::sort(names.begin(), names.end());
  }
}

}  // namespace

Contents walk(const Graph& graph, const Storages& storages, TableBytes& table_bytes,
              WalkBudget& budget, WalkStart start) {
  return Walk(graph, storages, table_bytes, budget, std::move(start)).run();
}

}  // namespace cairn::detail::torch
