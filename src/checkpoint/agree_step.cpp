#include <array>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "checkpoint/steps.hpp"
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

bool agree_on_request(const Comm& comm, const SaveRequest& request, const SaveLayout* layout) {
  agree(comm, "save: agree", [&] {
    fault_point("agree");
    for (const TensorView& piece : request.state.tensors) check_piece(piece);
    if (request.target.filename().empty()) {
      fail(Errc::usage, "'{}' does not name a file", request.target.string());
    }
  });
  // One maximum over values and complements gives maximum and minimum, so equality, in one call.
  constexpr std::array<std::string_view, 4> kSubjects{"path", "step", "options",
                                                      "names of rank blobs"};
  const std::array<std::uint64_t, 4> mine{digest_of(request.target.string()), request.state.step,
                                          options_hash(request.options),
                                          blob_names_hash(request.state)};
  std::array<std::uint64_t, 9> votes{};
  for (std::size_t i = 0; i < mine.size(); ++i) {
    votes[i] = mine[i];
    votes[4 + i] = ~mine[i];
  }
  votes[8] = layout == nullptr || layout->key != layout_key(request.state) ? 1 : 0;
  comm.all_reduce_max(std::span<std::uint64_t>(votes));
  for (std::size_t i = 0; i < mine.size(); ++i) {
    if (votes[i] != ~votes[4 + i]) {
      throw Error(
          Errc::mismatch,
          fmt::format("save: agree: the ranks disagree on the {} of the save; call it with the "
                      "same arguments on every rank",
                      kSubjects[i]),
          0);
    }
  }
  return votes[8] == 0;
}

}  // namespace cairn::detail
