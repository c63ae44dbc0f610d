#include "hash.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <numeric>
#include <queue>

#include "base/sha256.hpp"
#include "scan.hpp"
#include "transfer/reader.hpp"

namespace cairn::tool {
namespace {

using detail::Sha256;
using detail::Sha256Digest;

constexpr std::uint64_t kWindowBytes = 16 << 20;

/// The tensors of each rank, in the order of the manifest: largest first, each to the rank with the
/// fewest bytes so far. The same on all ranks.
std::vector<std::vector<std::size_t>> share_out(const Manifest& manifest, int ranks) {
  std::vector<std::size_t> order(manifest.tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return manifest.tensors[a].bytes() > manifest.tensors[b].bytes();
  });
  using Load = std::pair<std::uint64_t, std::size_t>;
  std::priority_queue<Load, std::vector<Load>, std::greater<>> least;
  for (std::size_t rank = 0; rank < static_cast<std::size_t>(ranks); ++rank) least.push({0, rank});
  std::vector<std::vector<std::size_t>> shares(static_cast<std::size_t>(ranks));
  for (const std::size_t t : order) {
    auto [bytes, rank] = least.top();
    least.pop();
    shares[rank].push_back(t);
    // One more, so that empty tensors are shared, too.
    least.push({bytes + manifest.tensors[t].bytes() + 1, rank});
  }
  for (auto& share : shares) std::sort(share.begin(), share.end());
  return shares;
}

Sha256Digest sha256_of(detail::Reader& reader, const TensorEntry& tensor,
                       std::vector<std::byte>& window) {
  Sha256 hash;
  for_each_window(tensor, kWindowBytes, [&](std::uint64_t start, std::uint64_t count) {
    window.resize(count * item_bytes(tensor.dtype));
    reader.read(tensor, Placement::flat(tensor.shape, start, count), window.data());
    hash.update(window);
  });
  return hash.finish();
}

}  // namespace

std::string sha256_of(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return detail::to_hex(hash.finish());
}

std::vector<std::string> sha256_of_tensors(const Comm& comm, const Manifest& manifest) {
  std::vector<std::vector<std::size_t>> shares;
  std::vector<std::byte> mine;
  agree(comm, "hash", [&] {
    shares = share_out(manifest, comm.size());
    detail::Reader reader(manifest);
    std::vector<std::byte> window;
    for (const std::size_t t : shares[static_cast<std::size_t>(comm.rank())]) {
      const auto hash = sha256_of(reader, manifest.tensors[t], window);
      mine.insert(mine.end(), hash.begin(), hash.end());
    }
  });
  const auto all = comm.gather(mine);
  std::vector<std::string> hashes;
  agree(comm, "hash", [&] {
    if (!comm.is_root()) return;
    hashes.resize(manifest.tensors.size());
    for (std::size_t rank = 0; rank < shares.size(); ++rank) {
      for (std::size_t i = 0; i < shares[rank].size(); ++i) {
        const std::size_t bytes = sizeof(Sha256Digest);
        hashes[shares[rank][i]] = detail::to_hex(std::span(all[rank]).subspan(i * bytes, bytes));
      }
    }
  });
  return hashes;
}

}  // namespace cairn::tool
