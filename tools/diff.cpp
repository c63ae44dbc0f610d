#include <algorithm>
#include <cstring>

#include "diff_report.hpp"
#include "output.hpp"
#include "program.hpp"
#include "scan.hpp"
#include "sources/local.hpp"
#include "transfer/reader.hpp"
#include "verbs.hpp"

namespace cairn::tool {
namespace {

constexpr std::uint64_t kWindowBytes = 8 << 20;

/// What one rank found in its windows of one pair, as it travels to rank 0.
struct Finding {
  std::uint64_t pair;
  Difference difference;
};

/// Compares every `size`-th window of all pairs, from this rank's on.
std::vector<Finding> compare_share(const Comm& comm, const Manifest& a, const Manifest& b,
                                   const std::vector<Pair>& pairs) {
  std::vector<Finding> findings;
  detail::Reader read_a(a);
  detail::Reader read_b(b);
  std::vector<std::byte> bytes_a;
  std::vector<std::byte> bytes_b;
  const auto ranks = static_cast<std::uint64_t>(comm.size());
  std::uint64_t turn = static_cast<std::uint64_t>(comm.rank());
  for (std::uint64_t p = 0; p < pairs.size(); ++p) {
    const TensorEntry& x = *pairs[p].a;
    const TensorEntry& y = *pairs[p].b;
    if (x.shape != y.shape || pairs[p].same_digest) continue;
    Difference found;
    const TensorEntry& wider = item_bytes(x.dtype) < item_bytes(y.dtype) ? y : x;
    for_each_window(wider, kWindowBytes, [&](std::uint64_t start, std::uint64_t count) {
      if (turn++ % ranks != 0) return;
      const Placement window = Placement::flat(x.shape, start, count);
      bytes_a.resize(count * item_bytes(x.dtype));
      bytes_b.resize(count * item_bytes(y.dtype));
      read_a.read(x, window, bytes_a.data());
      read_b.read(y, window, bytes_b.data());
      merge(found, compare(x.dtype, bytes_a.data(), y.dtype, bytes_b.data(), count));
    });
    if (found.differing != 0) findings.push_back({p, found});
  }
  return findings;
}

/// Fills in the values of all pairs of equal shape: complete on rank 0. Collective.
void compare_values(const Comm& comm, const Manifest& a, const Manifest& b, DiffReport& report) {
  std::vector<Finding> mine;
  agree(comm, "diff", [&] { mine = compare_share(comm, a, b, report.pairs); });
  const auto all = comm.gather(std::as_bytes(std::span<const Finding>(mine)));
  agree(comm, "diff", [&] {
    for (Pair& pair : report.pairs) {
      if (pair.a->shape == pair.b->shape) pair.values.emplace();
    }
    for (const auto& bytes : all) {
      for (std::size_t at = 0; at + sizeof(Finding) <= bytes.size(); at += sizeof(Finding)) {
        Finding finding;
        std::memcpy(&finding, bytes.data() + at, sizeof(finding));
        merge(*report.pairs[finding.pair].values, finding.difference);
      }
    }
  });
}

}  // namespace

int diff(const Comm& comm, const DiffOptions& options) {
  const Manifest a = open_checkpoint(comm, detail::resolve_local(comm, options.a));
  const Manifest b = open_checkpoint(comm, detail::resolve_local(comm, options.b));
  DiffReport report;
  std::vector<std::uint64_t> read_a;  // tensors whose values are looked at
  std::vector<std::uint64_t> read_b;
  agree(comm, "diff", [&] {
    report = compare_tables(a, b);
    read_a.resize(a.tensors.size());
    read_b.resize(b.tensors.size());
    for (const Pair& pair : report.pairs) {
      if (pair.same_digest || pair.a->shape != pair.b->shape) continue;
      read_a[static_cast<std::size_t>(pair.a - a.tensors.all().data())] = 1;
      read_b[static_cast<std::size_t>(pair.b - b.tensors.all().data())] = 1;
    }
  });
  require_undamaged(comm, a, read_a);
  require_undamaged(comm, b, read_b);
  compare_values(comm, a, b, report);
  print(comm, [&] { return options.json ? json_text_of(report, a, b) : text_of(report, a, b); });
  // Only rank 0 knows all values.
  std::uint64_t different[1] = {comm.is_root() && !is_equal(report) ? 1U : 0U};
  comm.all_reduce_max(std::span<std::uint64_t>(different));
  return different[0] == 0 ? kFine : kDifferent;
}

}  // namespace cairn::tool
