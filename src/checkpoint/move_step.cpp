// What several ranks want may be read once and sent to the others:
//  1. what all ranks want whole is found by one reduction of a bit for each tensor;
//  2. of the rest, the groups of ranks that want the same pieces are found by way of the pieces'
//     keepers, as those of a save are (plan/replicas.hpp);
//  3. rank 0 gives each group that wants enough a turn (plan/load_groups.hpp), and every group of a
//     turn gets a communicator of its own;
//  4. everything else is read by each rank for itself, then come all ranks together, then the
//     turns.
// All ranks meet after each turn, so that a failure in one group is that of all.
#include "checkpoint/move_step.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>
#include <unordered_set>

#include "base/bytes.hpp"
#include "base/digest.hpp"
#include "mpi/nodes.hpp"
#include "plan/load_groups.hpp"
#include "plan/region.hpp"
#include "plan/replicas.hpp"
#include "transfer/replicated.hpp"

namespace cairn::detail {
namespace {

constexpr std::string_view kStep = "load: move";

std::uint64_t bytes_of(const Manifest& manifest, const ReadItem& item) {
  return item.piece->elements() * item_bytes(manifest.tensors.head(item.tensor).dtype);
}

/// What is read by each rank for itself, and what every rank wants.
struct Shares {
  std::vector<ReadItem> own;
  std::vector<ReadItem> common;
};

/// Collective.
Shares divide(const Comm& comm, const Manifest& manifest, std::span<const ReadItem> items) {
  constexpr std::size_t kBits = 64;
  std::vector<std::uint64_t> missed;  // bit by tensor: a rank does not want all of it as one run
  std::vector<std::size_t> whole;     // positions in the items
  agree(comm, kStep, [&] {
    missed.resize((manifest.tensors.size() + kBits - 1) / kBits, ~std::uint64_t{0});
    for (std::size_t i = 0; i < items.size(); ++i) {
      const std::size_t t = items[i].tensor;
      const auto shape = manifest.tensors.head(t).shape;
      std::uint64_t elements = 1;
      for (const std::uint64_t count : shape) elements *= count;
      const std::uint64_t bit = std::uint64_t{1} << t % kBits;
      if (!items[i].run || items[i].piece->elements() != elements) continue;
      if ((missed[t / kBits] & bit) == 0) continue;  // a second target for the same tensor
      missed[t / kBits] &= ~bit;
      whole.push_back(i);
    }
  });
  comm.all_reduce_or(missed);
  Shares shares;
  agree(comm, kStep, [&] {
    auto next = whole.begin();
    for (std::size_t i = 0; i < items.size(); ++i) {
      const ReadItem& item = items[i];
      const bool is_whole = next != whole.end() && *next == i;
      if (is_whole) ++next;
      const bool is_common =
          is_whole && (missed[item.tensor / kBits] >> item.tensor % kBits & 1) == 0;
      (is_common ? shares.common : shares.own).push_back(item);
    }
    // The order of the file is the same on all ranks.
    std::sort(shares.common.begin(), shares.common.end(),
              [&](const ReadItem& a, const ReadItem& b) {
                // Views of one storage may start at the same byte.
                return std::tuple(a.run->file, a.run->offset, bytes_of(manifest, a)) <
                       std::tuple(b.run->file, b.run->offset, bytes_of(manifest, b));
              });
  });
  return shares;
}

/// A piece that this rank may share with others, and what it is called for that.
struct Candidate {
  std::uint64_t key = 0;  // the same for the same bytes
  FileRun place{};        // its first byte, or that of its tensor
  ReadItem item{};
};

std::optional<Candidate> candidate_of(const Manifest& manifest, const ReadItem& item) {
  Digester key;
  if (item.run) {
    key.update(std::uint64_t{item.run->file});
    key.update(item.run->offset);
    key.update(bytes_of(manifest, item));
    return Candidate{key.value(), *item.run, item};
  }
  const TensorEntry& tensor = manifest.tensors[item.tensor];
  // HDF5 reads datasets, and chunks with filters are inflated, as a whole: not in windows.
  if (tensor.extents.empty() || tensor.filters != 0 ||
      manifest.files.at(file_of(tensor)).access != Access::extents) {
    return std::nullopt;
  }
  key.update(std::uint64_t{item.tensor});
  for (const Box& box : region_of(*item.piece, item_bytes(tensor.dtype)).boxes) {
    for (const std::uint64_t start : box.start) key.update(start);
    for (const std::uint64_t count : box.count) key.update(count);
  }
  const Extent& first = tensor.extents.front();
  return Candidate{key.value(), {first.file, first.offset}, item};
}

std::vector<Candidate> candidates_of(const Manifest& manifest, std::span<const ReadItem> items,
                                     BroadcastReplicas how) {
  // Smaller ones are no bytes to speak of, and cost as many words.
  constexpr std::uint64_t kSmallBytes = 64 << 10;
  const std::uint64_t least = how == BroadcastReplicas::always ? 1 : kSmallBytes;
  std::vector<Candidate> candidates;
  std::unordered_set<std::uint64_t> known;  // a second target for the same bytes is not shared
  for (const ReadItem& item : items) {
    if (bytes_of(manifest, item) < least) continue;
    auto candidate = candidate_of(manifest, item);
    if (candidate && known.insert(candidate->key).second) {
      candidates.push_back(std::move(*candidate));
    }
  }
  return candidates;
}

/// The candidates of one group, in an order that all of its ranks have.
struct Group {
  std::uint64_t bytes = 0;
  std::vector<Candidate> pieces;
};

/// By name. Collective.
std::map<std::uint64_t, Group> groups_of(const Comm& comm, const Manifest& manifest,
                                         std::vector<Candidate> candidates, BroadcastReplicas how) {
  std::optional<PieceKeys> keys;
  agree(comm, kStep, [&] {
    std::vector<std::uint64_t> words;
    for (const Candidate& candidate : candidates) words.push_back(candidate.key);
    keys.emplace(words, comm.size());
  });
  const Words questions = comm.exchange(keys->questions());
  Words answers;
  agree(comm, kStep, [&] { answers = answer_questions(questions); });
  const Words answered = comm.exchange(answers);
  std::map<std::uint64_t, Group> groups;
  agree(comm, kStep, [&] {
    const std::vector<Holding> holdings = keys->holdings(answered);
    for (std::size_t c = 0; c < candidates.size(); ++c) {
      if (!holdings[c].replicated) continue;
      Group& group = groups[holdings[c].group];
      group.bytes += bytes_of(manifest, candidates[c].item);
      group.pieces.push_back(std::move(candidates[c]));
    }
    std::erase_if(groups, [&](const auto& g) { return g.second.bytes < least_to_share(2, how); });
    for (auto& [name, group] : groups) {
      std::sort(group.pieces.begin(), group.pieces.end(),
                [](const Candidate& a, const Candidate& b) {
                  return std::tuple(a.place.file, a.place.offset, a.key) <
                         std::tuple(b.place.file, b.place.offset, b.key);
                });
    }
  });
  return groups;
}

/// What this rank reads together with others.
struct Turn {
  std::optional<int> number;  // of the group; nothing: this rank waits
  std::vector<ReadItem> pieces;
};

std::vector<std::byte> encode(const std::map<std::uint64_t, Group>& groups) {
  ByteWriter out;
  for (const auto& [name, group] : groups) out.put(GroupWish{name, group.bytes});
  return out.take();
}

/// Rank 0's part: for each rank the number of turns, and one for each of its wishes.
std::vector<std::vector<std::byte>> answer(const std::vector<std::vector<std::byte>>& encoded,
                                           BroadcastReplicas how) {
  std::vector<std::vector<GroupWish>> wishes;
  for (const auto& bytes : encoded) {
    ByteReader in(bytes, "what a rank wants together with others");
    auto& mine = wishes.emplace_back();
    for (std::size_t n = bytes.size() / sizeof(GroupWish); n != 0; --n) {
      mine.push_back(in.get<GroupWish>());
    }
  }
  const auto chosen =
      choose_turns(wishes, [&](std::size_t ranks) { return least_to_share(ranks, how); });
  std::uint32_t turns = 0;
  for (const auto& of_rank : chosen) {
    for (const auto& turn : of_rank) turns = std::max(turns, turn ? turn->turn + 1 : 0);
  }
  std::vector<std::vector<std::byte>> answers;
  for (const auto& of_rank : chosen) {
    ByteWriter out;
    out.put(turns);
    // A turn that does not come is none.
    for (const auto& turn : of_rank) out.put(turn.value_or(GroupTurn{turns, 0}));
    answers.push_back(out.take());
  }
  return answers;
}

/// Takes what groups of ranks read out of `own`. Collective.
std::vector<Turn> find_turns(const Comm& comm, const Manifest& manifest, BroadcastReplicas how,
                             std::vector<ReadItem>& own) {
  std::vector<Candidate> candidates;
  std::uint64_t most[1] = {0};
  agree(comm, kStep, [&] {
    candidates = candidates_of(manifest, own, how);
    for (const Candidate& candidate : candidates) most[0] += bytes_of(manifest, candidate.item);
  });
  comm.all_reduce_max(std::span<std::uint64_t>(most));
  if (most[0] < least_to_share(2, how)) return {};
  std::map<std::uint64_t, Group> groups = groups_of(comm, manifest, std::move(candidates), how);
  std::uint64_t any[1] = {groups.size()};
  comm.all_reduce_max(std::span<std::uint64_t>(any));
  if (any[0] == 0) return {};

  std::vector<std::byte> mine;
  agree(comm, kStep, [&] { mine = encode(groups); });
  const auto wishes = comm.gather(mine);
  std::vector<std::vector<std::byte>> answers;
  agree(comm, kStep, [&] {
    if (comm.is_root()) answers = answer(wishes, how);
  });
  const std::vector<std::byte> answered = comm.scatter(answers);
  std::vector<Turn> turns;
  agree(comm, kStep, [&] {
    ByteReader in(answered, "when a rank reads together with others");
    turns.resize(in.get<std::uint32_t>());
    std::unordered_set<const std::byte*> shared;  // by memory, which no two targets have in common
    for (auto& [name, group] : groups) {
      const auto [turn, number] = in.get<GroupTurn>();
      if (turn >= turns.size()) continue;
      Turn& into = turns[turn];
      into.number = static_cast<int>(number);
      for (const Candidate& piece : group.pieces) {
        into.pieces.push_back(piece.item);
        shared.insert(piece.item.data);
      }
    }
    std::erase_if(own, [&](const ReadItem& item) { return shared.contains(item.data); });
  });
  return turns;
}

void count(const ReplicatedResult& part, LoadResult& result) {
  result.bytes_read += part.bytes_read;
  result.bytes_received += part.bytes_received;
}

/// Collective.
void take_turn(const Comm& comm, const Manifest& manifest, BroadcastReplicas how, const Turn& turn,
               LoadResult& result) {
  auto part = part_of(comm, turn.number);
  std::exception_ptr failure;
  if (part) {
    try {
      count(read_replicated(*part, manifest, turn.pieces, how), result);
    } catch (...) {
      failure = std::current_exception();
    }
    try {
      part->close();
    } catch (...) {
      if (!failure) failure = std::current_exception();
    }
  }
  agree(comm, kStep, [&] {
    if (failure) std::rethrow_exception(failure);
  });
}

}  // namespace

void move_straight(const Comm& comm, Engine& engine, EngineKind kind, const LoadOptions& options,
                   const Manifest& manifest, std::span<const ReadItem> items, LoadResult& result) {
  const BroadcastReplicas how = options.broadcast;
  Shares shares;
  std::vector<Turn> turns;
  const bool shares_nothing =
      comm.size() == 1 || kind != EngineKind::direct || how == BroadcastReplicas::never;
  if (!shares_nothing) {
    shares = divide(comm, manifest, items);
    turns = find_turns(comm, manifest, how, shares.own);
    items = shares.own;
  }
  result.bytes_read += engine.read(comm, manifest, items);
  if (shares_nothing) return;
  count(read_replicated(comm, manifest, shares.common, how), result);
  for (const Turn& turn : turns) take_turn(comm, manifest, how, turn, result);
}

}  // namespace cairn::detail
