#include "transfer/engine.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "os/fault.hpp"
#include "transfer/direct.hpp"
#include "transfer/mpio.hpp"

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

std::unique_ptr<Engine> make_engine(EngineKind kind, Transfer transfer, const MpioOptions& mpio) {
  if (kind == EngineKind::mpio) return std::make_unique<MpioEngine>(transfer, mpio);
  return std::make_unique<DirectEngine>();
}

std::uint64_t bytes_of(std::span<const WriteItem> items, std::span<const TensorEntry> tensors) {
  std::uint64_t bytes = 0;
  for (const WriteItem& item : items) {
    bytes += item.extent->box.elements() * item_bytes(tensors[item.tensor].dtype);
  }
  return bytes;
}

std::uint64_t hash_of(const MpioOptions& mpio) {
  Digester digester;
  for (const auto& [key, value] : mpio.hints) {
    digester.update(key);
    digester.update(value);
  }
  digester.update(static_cast<std::uint64_t>(mpio.component));
  digester.update(static_cast<std::uint64_t>(mpio.watchdog ? mpio.watchdog->count() : -1));
  digester.update(static_cast<std::uint64_t>(mpio.deflate));
  digester.update(static_cast<std::uint64_t>(mpio.shuffle));
  return digester.value();
}

const File& Writer::open_partial(const WriteJob& job) {
  written_.emplace(File::open_write(job.file));
  std::uint64_t found = 0;
  std::array<std::byte, sizeof(found)> bytes{};
  if (job.nonce_at <= written_->size() - std::min(written_->size(), bytes.size())) {
    written_->read_at(job.nonce_at, bytes);
    std::memcpy(&found, bytes.data(), sizeof(found));
  }
  if (found != job.nonce) {
    fail(Errc::mismatch,
         "'{}' is not the file that rank 0 made; save to a file system that all ranks share",
         job.file.string());
  }
  return *written_;
}

void Writer::settle(const Comm& comm, bool durable) {
  agree(comm, "save: make durable", [&] {
    fault_point("durable");
    if (!written_) return;
    if (durable) written_->sync();
    fault_point("durable.close");
    written_->close();
  });
  written_.reset();
}

}  // namespace detail
}  // namespace cairn
