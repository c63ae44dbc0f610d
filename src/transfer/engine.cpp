#include "transfer/engine.hpp"

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "plan/region.hpp"
#include "plan/slices.hpp"
#include "transfer/direct.hpp"
#include "transfer/mpio.hpp"
#include "transfer/reader.hpp"

namespace cairn {

EngineKind engine_from_string(std::string_view name) {
  if (name == "direct") return EngineKind::direct;
  if (name == "mpio") return EngineKind::mpio;
  detail::fail(Errc::usage, "'{}' is not an engine; direct and mpio are", name);
}

std::string_view to_string(EngineKind engine) {
  return engine == EngineKind::direct ? "direct" : "mpio";
}

namespace detail {

std::unique_ptr<Engine> make_engine(EngineKind kind, Transfer transfer) {
  if (kind == EngineKind::mpio) return std::make_unique<MpioEngine>(transfer);
  return std::make_unique<DirectEngine>();
}

std::uint64_t digest_in_file(Reader& reader, const TensorEntry& tensor, const Extent& extent) {
  constexpr std::uint64_t kWindowBytes = 4 << 20;
  const std::uint64_t item = item_bytes(tensor.dtype);
  Digester digester;
  std::vector<std::byte> window;
  for (const Box& box : region_of(tensor, extent).boxes) {
    for (const Box& slice : slices_of(box, kWindowBytes / item)) {
      window.resize(slice.elements() * item);
      reader.read(tensor, Placement::block(tensor.shape, slice), window.data());
      digester.update(window);
    }
  }
  return digester.value();
}

}  // namespace detail
}  // namespace cairn
