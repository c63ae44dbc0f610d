#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/digest.hpp"
#include "base/json_text.hpp"
#include "base/nonce.hpp"
#include "base/throw.hpp"
#include "cairn/version.hpp"
#include "checkpoint/references.hpp"
#include "checkpoint/steps.hpp"
#include "mpi/same.hpp"
#include "os/fault.hpp"
#include "os/host.hpp"

namespace cairn::detail {
namespace {

void check_kind(const TensorView& piece) {
  try {
    check_placement(piece.placement);
    item_bytes(piece.dtype);
  } catch (const Error& error) {
    fail(Errc::usage, "tensor '{}': {}", piece.name, error.what());
  }
}

void check_data(const TensorView& piece) {
  if (piece.data == nullptr && piece.placement.elements() != 0) {
    fail(Errc::usage, "tensor '{}' has no data", piece.name);
  }
}

std::uint64_t options_hash(const SaveOptions& options) {
  Digester digester;
  digester.update(static_cast<std::uint64_t>(options.engine));
  digester.update(static_cast<std::uint64_t>(options.transfer));
  digester.update(hash_of(options.mpio));
  digester.update(static_cast<std::uint64_t>(options.durable));
  digester.update(static_cast<std::uint64_t>(options.statistics));
  digester.update(static_cast<std::uint64_t>(options.replica_check));
  digester.update(static_cast<std::uint64_t>(options.delta));
  digester.update(options.retention.keep_last);
  digester.update(options.retention.keep_every_n_steps);
  digester.update(options.retention.keep_best.k);
  digester.update(std::string_view(options.retention.keep_best.metric));
  digester.update(static_cast<std::uint64_t>(options.retention.keep_best.mode));
  digester.update(static_cast<std::uint64_t>(options.async.when_busy));
  digester.update(static_cast<std::uint64_t>(options.async.on_failure));
  return digester.value();
}

std::uint64_t blob_names_hash(const StateView& state) {
  Digester digester;
  for (const auto& [name, bytes] : state.rank_blobs) digester.update(name);
  return digester.value();
}

std::map<std::string, std::string> with_own_documents(const Comm& comm, const StateView& state,
                                                      const SaveOptions& options) {
  auto documents = state.documents;
  for (const auto& [name, text] : documents) {
    if (is_deeper(text)) {
      fail(Errc::usage, "document '{}' is nested deeper than {}", name, kMostJsonDepth);
    }
  }
  documents["topology"] = nlohmann::json{{"world_size", comm.size()}}.dump();
  documents["provenance"] = nlohmann::json{
      {"library", "cairn"},
      {"version", CAIRN_VERSION_STRING},
      {"engine", to_string(options.engine)},
      {"host", host_name()}}.dump();
  // Room for what the engine tells when the file is open, and its key: blanks are JSON, too.
  if (options.engine == EngineKind::mpio) documents["provenance"].append(kMostFacts + 64, ' ');
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
  if (comm.is_root()) check_replaceable(target, /*may_call_hdf5=*/true);
}

void check_options(const SaveOptions& options) {
  if (options.mpio.deflate > 9) fail(Errc::usage, "deflate has the levels 0 to 9");
  if (options.mpio.deflate != 0 && options.engine != EngineKind::mpio) {
    fail(Errc::usage, "only the engine mpio deflates: use 'engine: mpio' or 'mpio.deflate: 0'");
  }
}

/// Whether this rank contributes the same pieces and blobs as to the last layout.
bool contributes_as_before(const StateView& state, const SaveLayout& layout) {
  const auto pieces =
      std::span(layout.contributed).first(layout.contributed.size() - layout.blob_bytes.size());
  return std::equal(state.tensors.begin(), state.tensors.end(), pieces.begin(), pieces.end(),
                    [](const TensorView& a, const TensorView& b) { return a.is_same_piece(b); }) &&
         std::equal(state.rank_blobs.begin(), state.rank_blobs.end(), layout.blob_bytes.begin(),
                    layout.blob_bytes.end(), [](const auto& blob, const auto& known) {
                      return blob.first == known.first && blob.second.size() == known.second;
                    });
}

}  // namespace

SaveStart agree_on_request(const Comm& comm, const SaveRequest& request, const SaveLayout* layout) {
  SaveStart start;
  std::vector<Argument> arguments;
  std::array<std::uint64_t, 2> maxima{};  // whether another layout is needed, rank 0's nonce
  agree(comm, "save: agree", [&] {
    fault_point("agree");
    check_target(comm, request.target);
    check_options(request.options);
    bool fits = layout != nullptr && contributes_as_before(request.state, *layout);
    for (const TensorView& piece : request.state.tensors) {
      if (!fits) check_kind(piece);  // otherwise it passed before
      if (!request.bytes_elsewhere) check_data(piece);
    }
    start.documents = with_own_documents(comm, request.state, request.options);
    arguments = {{"path", digest_of(request.target.string())},
                 {"step", request.state.step},
                 {"options", options_hash(request.options)},
                 {"names of rank blobs", blob_names_hash(request.state)}};
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
