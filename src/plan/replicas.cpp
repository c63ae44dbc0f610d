#include "plan/replicas.hpp"

#include <algorithm>
#include <unordered_map>

#include "base/bytes.hpp"
#include "base/digest.hpp"
#include "base/throw.hpp"
#include "manifest/codec.hpp"

namespace cairn::detail {
namespace {

// The lowest bits of an answer say whether to describe the piece, and whether there are replicas;
// the others name the group.
constexpr std::uint64_t kDescribe = 1;
constexpr std::uint64_t kReplicated = 2;
constexpr std::uint64_t kGroup = ~(kDescribe | kReplicated);

struct Question {
  std::uint64_t key = 0;
  std::size_t rank = 0;
  std::size_t position = 0;
};

std::vector<std::uint64_t> keys_of(std::span<const TensorView> pieces) {
  std::vector<std::uint64_t> keys;
  keys.reserve(pieces.size());
  for (const TensorView& piece : pieces) keys.push_back(piece_key(piece));
  return keys;
}

}  // namespace

std::uint64_t piece_key(const TensorView& piece) {
  ByteWriter out;
  out.put_text(piece.name);
  out.put(static_cast<std::uint8_t>(piece.dtype));
  const bool flat = piece.placement.kind == Placement::Kind::flat;
  out.put(static_cast<std::uint8_t>(flat));
  put_shape(out, piece.placement.global_shape);
  if (piece.placement.elements() != 0) put_box(out, piece.placement.box);
  return digest_of(out.take());
}

std::uint64_t group_name(std::span<const std::uint64_t> ranks) {
  return digest_of(std::as_bytes(ranks)) & kGroup;
}

PieceKeys::PieceKeys(std::span<const std::uint64_t> keys, int ranks)
    : questions_(static_cast<std::size_t>(ranks)) {
  std::unordered_map<std::uint64_t, std::size_t> piece_of;
  places_.reserve(keys.size());
  for (std::size_t p = 0; p < keys.size(); ++p) {
    const auto [it, is_new] = piece_of.try_emplace(keys[p], p);
    if (!is_new) {
      places_.push_back({places_[it->second].keeper, places_[it->second].position, false});
      continue;
    }
    const std::size_t keeper = keys[p] % questions_.size();
    places_.push_back({keeper, questions_[keeper].size(), true});
    questions_[keeper].push_back(keys[p]);
  }
}

PieceKeys::PieceKeys(std::span<const TensorView> pieces, int ranks)
    : PieceKeys(keys_of(pieces), ranks) {
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    if (places_[p].first || pieces[p].placement.elements() == 0) continue;
    fail(Errc::usage, "tensor '{}' {} is given twice by one rank", pieces[p].name,
         to_string(pieces[p].placement.box));
  }
}

std::vector<Holding> PieceKeys::holdings(const Words& answers) const {
  const std::vector<std::uint64_t> by_piece = from_keepers(answers);
  std::vector<Holding> holdings;
  holdings.reserve(places_.size());
  for (std::size_t p = 0; p < places_.size(); ++p) {
    const std::uint64_t answer = by_piece[p];
    holdings.push_back({answer & kGroup, places_[p].first && (answer & kDescribe) != 0,
                        (answer & kReplicated) != 0});
  }
  return holdings;
}

Words PieceKeys::for_keepers(std::span<const std::uint64_t> by_piece) const {
  Words words(questions_.size());
  for (std::size_t r = 0; r < words.size(); ++r) words[r].resize(questions_[r].size());
  for (std::size_t p = 0; p < places_.size(); ++p) {
    if (places_[p].first) words[places_[p].keeper][places_[p].position] = by_piece[p];
  }
  return words;
}

std::vector<std::uint64_t> PieceKeys::from_keepers(const Words& answers) const {
  for (std::size_t r = 0; r < questions_.size(); ++r) {
    if (answers.at(r).size() != questions_[r].size()) {
      fail(Errc::internal, "rank {} answered {} of {} questions", r, answers[r].size(),
           questions_[r].size());
    }
  }
  std::vector<std::uint64_t> by_piece;
  by_piece.reserve(places_.size());
  for (const Place& place : places_) by_piece.push_back(answers[place.keeper][place.position]);
  return by_piece;
}

Words answer_questions(const Words& questions) {
  std::vector<Question> all;
  Words answers(questions.size());
  for (std::size_t rank = 0; rank < questions.size(); ++rank) {
    answers[rank].resize(questions[rank].size());
    for (std::size_t i = 0; i < questions[rank].size(); ++i) {
      all.push_back({questions[rank][i], rank, i});
    }
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Question& a, const Question& b) { return a.key < b.key; });
  std::vector<std::uint64_t> holders;
  for (auto first = all.begin(); first != all.end();) {
    const auto last =
        std::find_if(first, all.end(), [&](const Question& q) { return q.key != first->key; });
    holders.clear();
    for (auto holder = first; holder != last; ++holder) holders.push_back(holder->rank);
    const std::uint64_t group = group_name(holders) | (last - first > 1 ? kReplicated : 0);
    for (auto holder = first; holder != last; ++holder) {
      answers[holder->rank][holder->position] = group;
    }
    // Another holder for each piece, so that describing all replicated ones is shared.
    const Question& describer = first[static_cast<std::ptrdiff_t>(
        (first->key >> 32) % static_cast<std::uint64_t>(last - first))];
    answers[describer.rank][describer.position] |= kDescribe;
    first = last;
  }
  return answers;
}

}  // namespace cairn::detail
