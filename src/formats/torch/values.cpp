#include "formats/torch/values.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "base/sha256.hpp"
#include "formats/torch/flat.hpp"
#include "formats/torch/leaves.hpp"
#include "formats/torch/numpy.hpp"
#include "formats/torch/numpy_scalar.hpp"
#include "formats/torch/path_text.hpp"

namespace cairn::detail::torch {
namespace {

using pickle::Class;
using pickle::Graph;
using pickle::Kind;
using pickle::kNoRef;
using pickle::Ref;

Json integer_of(const Graph& graph, Ref ref) {
  if (graph.kind(ref) == Kind::integer) return integer_json(graph.integer(ref));
  return graph.decimal(ref);
}

std::string path_text(const Graph& graph, Ref ref) {
  constexpr std::size_t kMostParts = 256;
  constexpr std::size_t kMostBytes = 4096;  // which no system's paths exceed
  const pickle::Object& object = graph.object(ref);
  std::vector<std::string_view> parts;
  std::size_t bytes = 0;
  for (const Ref part : graph.elements(object.args)) {
    if (graph.kind(part) != Kind::text || parts.size() == kMostParts) return "...";
    parts.push_back(graph.text(part));
    bytes += parts.back().size();
    if (bytes > kMostBytes) return "...";
  }
  const bool windows = graph.global(object.callee).name.find("Windows") != std::string::npos;
  return windows ? windows_path(parts) : posix_path(parts);
}

std::optional<Json> known_object(const Graph& graph, Ref ref) {
  const auto args = graph.elements(graph.object(ref).args);
  switch (graph.class_of(ref)) {
    case Class::torch_size:
      if (args.size() != 1) return std::nullopt;
      return Json{{"type", "torch.Size"}, {"value", values_of(graph, args[0])}};
    case Class::torch_device: {
      std::string device;
      for (const Ref part : args) {
        const bool text = graph.kind(part) == Kind::text;
        if (!text && graph.kind(part) != Kind::integer) return std::nullopt;
        if (!device.empty()) device += ':';
        device += text ? std::string(graph.text(part)) : graph.decimal(part);
      }
      return Json{{"type", "torch.device"}, {"value", device}};
    }
    case Class::path:
      return Json{{"type", "path"}, {"value", path_text(graph, ref)}};
    case Class::numpy_scalar:
      return numpy_scalar_of(graph, ref);
    default:
      return std::nullopt;
  }
}

/// "module.Class", also of a class in a class.
std::string class_name(const Graph& graph, Ref callee) {
  if (graph.kind(callee) == Kind::global) return graph.global(callee).qualified();
  const pickle::Object& object = graph.object(callee);
  const auto args = graph.elements(object.args);
  const bool nested = graph.class_of(callee) == Class::get_attribute && args.size() == 2 &&
                      graph.kind(args[0]) == Kind::global && graph.kind(args[1]) == Kind::text;
  if (!nested) return "builtins.object";
  return fmt::format("{}.{}", graph.global(args[0]).qualified(), graph.text(args[1]));
}

Json state_of(const Graph& graph, Ref dict) {
  Json state = Json::object();
  const auto pairs = graph.pairs(dict);
  for (std::size_t i = 0; i < pairs.size(); i += 2) {
    if (graph.kind(pairs[i]) != Kind::text) continue;
    switch (graph.kind(pairs[i + 1])) {
      case Kind::none:
      case Kind::boolean:
      case Kind::integer:
      case Kind::big_integer:
      case Kind::real:
      case Kind::text:
        // No key is there twice, and to look for it would take as long as there are keys.
        state.get_ref<Json::object_t&>().emplace_back(std::string(graph.text(pairs[i])),
                                                      value_of(graph, pairs[i + 1]));
        break;
      default:
        break;
    }
  }
  return state;
}

/// getattr(Colour, "RED") is how Python 3.11 writes an enum, getattr(object, "name") a method.
Json attribute_of(const Graph& graph, std::span<const Ref> args) {
  const std::string name(graph.kind(args[1]) == Kind::text ? graph.text(args[1]) : "...");
  if (graph.kind(args[0]) == Kind::global) {
    return {{"class", graph.global(args[0]).qualified()}, {"enum_name", name}};
  }
  return {{"class", "builtins.method"}, {"name", name}};
}

}  // namespace

std::optional<Json> scalar_of(const Graph& graph, Ref ref) {
  switch (graph.kind(ref)) {
    case Kind::none:
      return Json{{"type", "none"}, {"value", nullptr}};
    case Kind::boolean:
      return Json{{"type", "bool"}, {"value", graph.boolean(ref)}};
    case Kind::integer:
    case Kind::big_integer:
      return Json{{"type", "int"}, {"value", integer_of(graph, ref)}};
    case Kind::real:
      return float_leaf("float", graph.real(ref));
    case Kind::text:
      return Json{{"type", "str"}, {"value", std::string(graph.text(ref))}};
    case Kind::bytes:
    case Kind::bytearray:
      return Json{{"type", graph.kind(ref) == Kind::bytes ? "bytes" : "bytearray"},
                  {"value", to_hex(std::as_bytes(std::span(graph.text(ref))))}};
    case Kind::complex: {
      const auto parts = graph.elements(ref);
      return Json{
          {"type", "complex"},
          {"value", {number_json(graph.real(parts[0])), number_json(graph.real(parts[1]))}}};
    }
    default:
      return std::nullopt;
  }
}

std::optional<Json> leaf_of(const Graph& graph, Ref ref) {
  if (auto scalar = scalar_of(graph, ref)) return scalar;
  switch (graph.kind(ref)) {
    case Kind::set:
    case Kind::frozenset:
      return collection_of(graph, ref);
    case Kind::list:
    case Kind::tuple:
      if (!graph.elements(ref).empty() && !is_flat(graph, ref)) return std::nullopt;
      return collection_of(graph, ref);
    case Kind::dict:
      if (!graph.pairs(ref).empty()) return std::nullopt;
      return Json{{"type", "dict"}, {"value", Json::object()}};
    case Kind::global:
      if (graph.class_of(ref) != Class::torch_dtype) return std::nullopt;
      return Json{{"type", "torch.dtype"}, {"value", graph.global(ref).qualified()}};
    case Kind::object:
      return known_object(graph, ref);
    default:
      return std::nullopt;
  }
}

bool is_closed(const Graph& graph, Ref ref) {
  switch (graph.kind(ref)) {
    case Kind::list:
    case Kind::tuple:
      return graph.elements(ref).empty() || is_flat(graph, ref);
    case Kind::dict:
      return graph.pairs(ref).empty();
    case Kind::object:
      switch (graph.class_of(ref)) {
        case Class::torch_size:
        case Class::torch_device:
        case Class::path:
        case Class::numpy_scalar:
        case Class::numpy_frombuffer:
        case Class::numpy_reconstruct:
          return true;
        default:
          return false;
      }
    default:
      return true;
  }
}

Ref attributes_of(const Graph& graph, Ref ref) {
  if (graph.kind(ref) != Kind::object) return kNoRef;
  Ref state = graph.object(ref).state;
  if (state == kNoRef) return kNoRef;
  if (graph.kind(state) == Kind::tuple) {  // (attributes, slots)
    const auto parts = graph.elements(state);
    const auto dict = std::find_if(parts.begin(), parts.end(),
                                   [&](Ref part) { return graph.kind(part) == Kind::dict; });
    if (dict == parts.end()) return kNoRef;
    state = *dict;
  }
  if (graph.kind(state) != Kind::dict) return kNoRef;
  const auto inner = graph.find(state, "__dict__");  // pydantic's models
  return inner && graph.kind(*inner) == Kind::dict ? *inner : state;
}

bool has_open_state(const Graph& graph, Ref ref) {
  const Ref attributes = attributes_of(graph, ref);
  if (attributes == kNoRef) return false;
  const Ref state = graph.object(ref).state;
  const bool model = attributes != state && graph.kind(state) == Kind::dict;
  return model || graph.class_of(ref) == Class::name_space;
}

Ref plain_of(const Graph& graph, Ref ref) {
  constexpr int kMostNodes = 100;  // nodes around each other
  for (int i = 0; i < kMostNodes && graph.kind(ref) == Kind::object; ++i) {
    const Class cls = graph.class_of(ref);
    const bool node = cls == Class::omega_node;
    if (!node && cls != Class::omega_dict && cls != Class::omega_list) return ref;
    const Ref attributes = attributes_of(graph, ref);
    if (attributes == kNoRef) return ref;
    const auto content = graph.find(attributes, node ? "_val" : "_content");
    if (!content) return ref;
    ref = *content;
  }
  return ref;
}

Json opaque_of(const Graph& graph, Ref ref) {
  if (graph.kind(ref) == Kind::global) return {{"class", graph.global(ref).qualified()}};
  if (graph.kind(ref) == Kind::persistent) {  // a storage that is no tensor's
    return {{"class", class_name(graph, graph.elements(graph.persistent_id(ref))[1])}};
  }
  const pickle::Object& object = graph.object(ref);
  const auto args = graph.elements(object.args);
  if (graph.class_of(ref) == Class::get_attribute && args.size() == 2) {
    return attribute_of(graph, args);
  }
  if (const auto array = numpy_array_of(graph, ref)) {
    const bool scalar = graph.class_of(ref) == Class::numpy_scalar;
    return {{"class", "numpy." + (scalar ? array->type.name() : "ndarray")},
            {"dtype", array->type.text()}};
  }
  Json record = {{"class", class_name(graph, object.callee)}};
  if (!args.empty()) {
    const Kind kind = graph.kind(args[0]);
    const bool value = kind == Kind::integer || kind == Kind::text;
    if (object.called && args.size() == 1 && value) {
      record["enum_value"] = value_of(graph, args[0]);
    }
    record["args"] = values_of(graph, object.args);
  }
  const Ref attributes = attributes_of(graph, ref);
  if (attributes != kNoRef) record["state"] = state_of(graph, attributes);
  return record;
}

Json json_of(std::span<const PathKey> path) {
  Json json = Json::array();
  for (const PathKey& key : path) {
    std::visit([&](const auto& value) { json.push_back(value); }, key);
  }
  return json;
}

std::string name_of(std::span<const PathKey> path) {
  std::string name;
  bool first = true;
  for (const PathKey& key : path) {
    if (!first) name += '/';
    first = false;
    const auto* text = std::get_if<std::string>(&key);
    if (text == nullptr) {
      name += std::to_string(std::get<std::int64_t>(key));
      continue;
    }
    for (const char c : *text) {
      if (c == '/' || c == '\\') name += '\\';
      name += c;
    }
  }
  return name;
}

}  // namespace cairn::detail::torch
