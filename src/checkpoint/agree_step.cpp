#include <unistd.h>

#include <array>
#include <nlohmann/json.hpp>
#include <random>
#include <system_error>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "cairn/version.hpp"
#include "checkpoint/steps.hpp"
#include "mpi/same.hpp"
#include "os/fault.hpp"
#include "plan/save_plan.hpp"

namespace cairn::detail {
namespace {

void check_piece(const TensorView& piece) {
  try {
    check_placement(piece.placement);
    item_bytes(piece.dtype);
  } catch (const Error& error) {
    fail(Errc::usage, "tensor '{}': {}", piece.name, error.what());
  }
  if (piece.data == nullptr && piece.placement.elements() != 0) {
    fail(Errc::usage, "tensor '{}' has no data", piece.name);
  }
}

std::uint64_t options_hash(const SaveOptions& options) {
  Digester digester;
  digester.update(static_cast<std::uint64_t>(options.engine));
  digester.update(static_cast<std::uint64_t>(options.transfer));
  digester.update(static_cast<std::uint64_t>(options.durable));
  return digester.value();
}

std::uint64_t blob_names_hash(const StateView& state) {
  Digester digester;
  for (const auto& [name, bytes] : state.rank_blobs) digester.update(name);
  return digester.value();
}

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

std::map<std::string, std::string> with_own_documents(const Comm& comm, const StateView& state,
                                                      const SaveOptions& options) {
  auto documents = state.documents;
  documents["topology"] = nlohmann::json{{"world_size", comm.size()}}.dump();
  documents["provenance"] = nlohmann::json{
      {"library", "cairn"},
      {"version", CAIRN_VERSION_STRING},
      {"engine", to_string(options.engine)},
      {"host", host_name()}}.dump();
  return documents;
}

/// Whether rank 0's documents have other names or outgrew their rooms.
bool documents_fit(const ContainerLayout& layout,
                   const std::map<std::string, std::string>& documents) {
  if (documents.size() != layout.documents.size()) return false;
  for (const auto& [name, text] : documents) {
    const auto slot = layout.documents.find(name);
    if (slot == layout.documents.end() || text.size() >= slot->second.span.bytes) return false;
  }
  return true;
}

void check_target(const Comm& comm, const std::filesystem::path& target) {
  std::error_code ignored;
  if (target.filename().empty()) fail(Errc::usage, "'{}' does not name a file", target.string());
  if (comm.is_root() && std::filesystem::is_directory(target, ignored)) {
    fail(Errc::usage, "'{}' is a directory; name the file to save to", target.string());
  }
}

/// Never 0, which is what a file without a nonce holds.
std::uint64_t random_nonce() {
  std::random_device device;
  return std::uint64_t{device()} << 32 | device() | 1;
}

}  // namespace

std::uint64_t layout_key(const StateView& state) {
  Digester digester;
  digester.update(pieces_hash(state.tensors));
  for (const auto& [name, bytes] : state.rank_blobs) {
    digester.update(name);
    digester.update(static_cast<std::uint64_t>(bytes.size()));
  }
  return digester.value();
}

SaveStart agree_on_request(const Comm& comm, const SaveRequest& request, const SaveLayout* layout) {
  SaveStart start;
  std::vector<Argument> arguments;
  std::array<std::uint64_t, 2> maxima{};  // whether another layout is needed, rank 0's nonce
  agree(comm, "save: agree", [&] {
    fault_point("agree");
    check_target(comm, request.target);
    for (const TensorView& piece : request.state.tensors) check_piece(piece);
    start.documents = with_own_documents(comm, request.state, request.options);
    arguments = {{"path", digest_of(request.target.string())},
                 {"step", request.state.step},
                 {"options", options_hash(request.options)},
                 {"names of rank blobs", blob_names_hash(request.state)}};
    bool fits = layout != nullptr && layout->key == layout_key(request.state);
    if (comm.is_root()) {
      // Only rank 0 has documents that count; its vote stands for all.
      fits = fits && documents_fit(layout->container, start.documents);
      maxima[1] = random_nonce();
    }
    maxima[0] = fits ? 0 : 1;
  });
  require_same(comm, "save: agree", arguments, maxima);
  start.layout_fits = maxima[0] == 0;
  start.nonce = maxima[1];
  return start;
}

}  // namespace cairn::detail
