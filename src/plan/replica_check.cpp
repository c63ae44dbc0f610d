#include "plan/replica_check.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <unordered_map>
#include <utility>

#include "base/bytes.hpp"
#include "base/digest.hpp"
#include "base/throw.hpp"
#include "manifest/codec.hpp"
#include "manifest/names.hpp"

namespace cairn::detail {
namespace {

constexpr std::uint64_t kSampleEvery = 1 << 20;
constexpr std::uint64_t kSampleBytes = 4 << 10;

Divergence decode_divergence(std::span<const std::byte> bytes) {
  ByteReader in(bytes, "what a rank said of its replicas");
  Divergence divergence;
  divergence.name = in.get_text();
  divergence.box = get_box(in);
  divergence.digest = in.get<std::uint64_t>();
  return divergence;
}

bool comes_before(const Divergence& a, const Divergence& b) {
  if (a.name != b.name) return names::natural_less(a.name, b.name);
  return a.box.start < b.box.start;
}

std::string list_of(const std::vector<std::size_t>& ranks) {
  constexpr std::size_t kMost = 16;
  const bool all = ranks.size() <= kMost;
  return fmt::format("{} {}{}", ranks.size() == 1 ? "rank" : "ranks",
                     fmt::join(ranks.begin(), all ? ranks.end() : ranks.begin() + kMost, ", "),
                     all ? "" : fmt::format(" and {} more", ranks.size() - kMost));
}

}  // namespace

std::uint64_t full_digest(std::span<const std::byte> bytes) { return digest_of(bytes); }

std::uint64_t sample_digest(std::span<const std::byte> bytes, std::uint64_t turn) {
  Digester digester;
  for (std::uint64_t start = 0; start < bytes.size(); start += kSampleEvery) {
    const std::uint64_t span = std::min(kSampleEvery, bytes.size() - start);
    const std::uint64_t count = std::min(kSampleBytes, span);
    const std::uint64_t seed[2] = {turn, start};
    const std::uint64_t skip = digest_of(std::as_bytes(std::span(seed))) % (span - count + 1);
    digester.update(bytes.subspan(start + skip, count));
  }
  return digester.value();
}

Comparison compare_replicas(const Words& questions, const Words& digests) {
  struct Seen {
    std::uint64_t digest = 0;
    bool differs = false;
  };
  std::unordered_map<std::uint64_t, Seen> by_key;
  Comparison comparison;
  comparison.answers.resize(questions.size());
  for (std::size_t rank = 0; rank < questions.size(); ++rank) {
    if (digests.at(rank).size() != questions[rank].size()) {
      fail(Errc::internal, "rank {} sent {} digests of {} pieces", rank, digests[rank].size(),
           questions[rank].size());
    }
    for (std::size_t i = 0; i < questions[rank].size(); ++i) {
      const auto [it, is_new] = by_key.try_emplace(questions[rank][i], Seen{digests[rank][i]});
      if (it->second.digest == digests[rank][i] || it->second.differs) continue;
      it->second.differs = true;
      comparison.pieces += 1;
    }
  }
  if (comparison.pieces == 0) {
    for (std::size_t r = 0; r < questions.size(); ++r) {
      comparison.answers[r].resize(questions[r].size());
    }
    return comparison;
  }
  for (std::size_t r = 0; r < questions.size(); ++r) {
    for (const std::uint64_t key : questions[r]) {
      comparison.answers[r].push_back(by_key.at(key).differs ? 1 : 0);
    }
  }
  return comparison;
}

Divergence first_divergence(std::span<const TensorView> pieces, const std::vector<bool>& differs,
                            std::span<const std::uint64_t> digests) {
  Divergence first;
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    if (!differs[p]) continue;
    Divergence found{pieces[p].name, pieces[p].placement.box, digests[p]};
    if (first.name.empty() || comes_before(found, first)) first = std::move(found);
  }
  return first;
}

std::vector<std::byte> encode_divergence(const Divergence& divergence) {
  ByteWriter out;
  out.put_text(divergence.name);
  put_box(out, divergence.box);
  out.put(divergence.digest);
  return out.take();
}

void fail_diverged(const std::vector<std::vector<std::byte>>& encoded, std::uint64_t pieces) {
  std::vector<Divergence> all;
  for (const auto& bytes : encoded) all.push_back(decode_divergence(bytes));
  const Divergence* first = nullptr;
  for (const Divergence& one : all) {
    if (!one.name.empty() && (first == nullptr || comes_before(one, *first))) first = &one;
  }
  if (first == nullptr) fail(Errc::internal, "{} replicated pieces differ, but on no rank", pieces);
  std::map<std::uint64_t, std::vector<std::size_t>> holders;  // by digest
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].name == first->name && all[rank].box == first->box) {
      holders[all[rank].digest].push_back(rank);
    }
  }
  std::vector<std::vector<std::size_t>> sets;
  for (auto& [digest, ranks] : holders) sets.push_back(std::move(ranks));
  std::sort(sets.begin(), sets.end(), [](const auto& a, const auto& b) {
    return a.size() != b.size() ? a.size() > b.size() : a < b;
  });
  std::vector<std::string> lists;
  for (const auto& ranks : sets) lists.push_back(list_of(ranks));
  fail(Errc::mismatch,
       "the replicas of tensor '{}' {} differ: {} hold different bytes{}; the ranks have diverged: "
       "resume from a checkpoint of before, or set save.replica_check to off",
       first->name, to_string(first->box), fmt::join(lists, " | "),
       pieces > 1 ? fmt::format(" (and so do {} more pieces)", pieces - 1) : "");
}

}  // namespace cairn::detail
