#include "formats/torch/weight.hpp"

#include "formats/torch/values.hpp"

namespace cairn::detail::torch {
namespace {

using pickle::Class;
using pickle::Graph;
using pickle::Kind;
using pickle::kNoRef;
using pickle::Ref;

class Scale {
 public:
  Scale(const Graph& graph, std::uint64_t most) : graph_(graph), most_(most) {}

  Weight weight() const { return weight_; }

  /// A value and its parts, `depth` levels of them.
  void add(Ref ref, int depth) {
    ++weight_.values;
    ++weight_.bytes;
    switch (graph_.kind(ref)) {
      case Kind::text:
      case Kind::bytes:
      case Kind::bytearray:
      case Kind::big_integer:
        weight_.bytes += graph_.text(ref).size();
        return;
      case Kind::global:
        weight_.bytes += graph_.global(ref).module.size() + graph_.global(ref).name.size();
        return;
      case Kind::object:
        if (depth > 0 && graph_.class_of(ref) == Class::numpy_dtype) {
          add(graph_.object(ref).args, 1);
          if (graph_.object(ref).state != kNoRef) add(graph_.object(ref).state, 1);
        }
        return;
      default:
        if (depth > 0) add_parts(ref, depth - 1);
    }
  }

  void add_object(Ref ref) {
    const pickle::Object& object = graph_.object(ref);
    const Class cls = graph_.class_of(ref);
    add(object.callee, 0);
    if (graph_.kind(object.callee) == Kind::object) add(graph_.object(object.callee).args, 1);
    add(object.args, cls == Class::torch_size ? 3 : 2);
    if (object.state == kNoRef) return;
    if (cls == Class::numpy_reconstruct) return add(object.state, 2);
    weight_.values += graph_.elements(object.state).size() + graph_.pairs(object.state).size();
    const Ref attributes = attributes_of(graph_, ref);
    if (attributes == kNoRef) return;
    for (const Ref part : graph_.pairs(attributes)) {
      if (full()) return;
      const Kind kind = graph_.kind(part);
      if (kind == Kind::bytes || kind == Kind::bytearray) continue;  // they are not told
      add(part, 0);
    }
  }

 private:
  bool full() const { return weight_.bytes > most_; }

  void add_parts(Ref ref, int depth) {
    for (const Ref part : graph_.elements(ref)) {
      if (full()) return;
      add(part, depth);
    }
  }

  const Graph& graph_;
  std::uint64_t most_;
  Weight weight_;
};

}  // namespace

Weight weight_of(const Graph& graph, Ref ref, std::uint64_t most) {
  Scale scale(graph, most);
  switch (graph.kind(ref)) {
    case Kind::object:
      scale.add_object(ref);
      break;
    case Kind::persistent:  // (what, its class, ...)
      scale.add(graph.persistent_id(ref), 1);
      break;
    case Kind::set:
    case Kind::frozenset:  // of tuples, too
      scale.add(ref, 2);
      break;
    default:
      scale.add(ref, 1);
  }
  return scale.weight();
}

}  // namespace cairn::detail::torch
