#include "base/throw.hpp"
#include "checkpoint/steps.hpp"
#include "os/fault.hpp"
#include "plan/replica_check.hpp"

namespace cairn::detail {

void check_replicas(const Comm& comm, const SaveRequest& request, const SaveLayout& layout) {
  constexpr std::string_view kStep = "save: compare replicas";
  const ReplicaCheck check = request.options.replica_check;
  if (check == ReplicaCheck::off) return;
  const std::span<const TensorView> pieces = request.state.tensors;
  std::vector<std::uint64_t> digests(layout.replicated.size());
  Words mine;
  agree(comm, kStep, [&] {
    fault_point("replicas");
    for (std::size_t p = 0; p < pieces.size(); ++p) {
      if (!layout.replicated[p]) continue;
      const std::span bytes(pieces[p].data,
                            pieces[p].placement.elements() * item_bytes(pieces[p].dtype));
      digests[p] = check == ReplicaCheck::full ? full_digest(bytes)
                                               : sample_digest(bytes, request.state.step);
    }
    mine = layout.keys.for_keepers(digests);
  });
  const Words asked = comm.exchange(mine);
  Comparison comparison;
  agree(comm, kStep, [&] { comparison = compare_replicas(layout.kept, asked); });
  std::uint64_t different[1] = {comparison.pieces};
  comm.all_reduce_sum(std::span<std::uint64_t>(different));
  if (different[0] == 0) return;
  const Words answers = comm.exchange(comparison.answers);
  std::vector<std::byte> told;
  agree(comm, kStep, [&] {
    const std::vector<std::uint64_t> differ = layout.keys.from_keepers(answers);
    told = encode_divergence(first_divergence(pieces, {differ.begin(), differ.end()}, digests));
  });
  const auto all = comm.gather(told);
  agree(comm, kStep, [&] {
    if (comm.is_root()) fail_diverged(all, different[0]);
  });
}

}  // namespace cairn::detail
