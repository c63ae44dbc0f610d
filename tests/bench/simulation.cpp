// One rank cannot be 10,000 ranks, but it can do the work of any one of them:
//  1. member: the pieces of one rank become keys and, with the answers, a report
//  2. keeper: the questions of all ranks to one keeper are answered; they are found by asking each
//     distinct piece for its key, once, however many ranks hold it
//  3. root: the reports of all ranks, each distinct piece in one of them, become the plan
#include "simulation.hpp"

#include <fmt/format.h>

#include <chrono>
#include <functional>
#include <map>

#include "base/throw.hpp"
#include "heap.hpp"
#include "plan/replicas.hpp"
#include "plan/save_plan.hpp"

namespace cairn::bench {
namespace {

using namespace detail;

constexpr int kModelRanks = 8;
constexpr int kMember = 11;  // the rank that is looked at; any would do

Cost cost_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  const std::uint64_t peak = heap_peak_of(work);
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), peak};
}

/// The model, piece by piece. A set of holders is named by two numbers, -1 for "all": the rank's
/// position in the model-parallel group, and its position among the replicas.
struct Holders {
  int column = -1;
  int replica = -1;
  auto operator<=>(const Holders&) const = default;
};

class Job {
 public:
  Job(int ranks, std::uint64_t tensors) : ranks_(ranks), weights_(tensors / 3) {}

  std::vector<int> members(const Holders& holders) const {
    std::vector<int> all;
    for (int rank = 0; rank < ranks_; ++rank) {
      if (holders.column >= 0 && rank % kModelRanks != holders.column) continue;
      if (holders.replica >= 0 && rank / kModelRanks != holders.replica) continue;
      all.push_back(rank);
    }
    return all;
  }

  /// Calls `visit(holders, piece)` for every distinct piece.
  void for_each(const std::function<void(const Holders&, const TensorView&)>& visit) const {
    const int replicas = ranks_ / kModelRanks;
    for (std::uint64_t w = 0; w < weights_; ++w) {
      const int owner = static_cast<int>(w % static_cast<std::uint64_t>(replicas));
      const std::string name = fmt::format("block.{}.part.{}.weight", w / 12, w % 12);
      const bool split = w % 2 == 0;
      const Shape shape = split ? Shape{256, 512} : Shape{1024};
      for (int column = 0; column < (split ? kModelRanks : 1); ++column) {
        const Placement place =
            split ? Placement::split(shape, 1, kModelRanks, column) : Placement::replicated(shape);
        visit({split ? column : -1, -1}, {"model/" + name, DType::bf16, place, nullptr});
        for (const char* slot : {"exp_avg", "exp_avg_sq"}) {
          visit({split ? column : 0, owner},
                {fmt::format("optimizer/{}/{}", name, slot), DType::f32, place, nullptr});
        }
      }
    }
  }

 private:
  int ranks_;
  std::uint64_t weights_;
};

bool holds(const Holders& holders, int rank) {
  return (holders.column < 0 || rank % kModelRanks == holders.column) &&
         (holders.replica < 0 || rank / kModelRanks == holders.replica);
}

/// The group that keepers give to a set of holders.
std::uint64_t group_of(const std::vector<int>& members, int ranks) {
  Words questions(static_cast<std::size_t>(ranks));
  for (const int rank : members) questions[static_cast<std::size_t>(rank)] = {0};
  const Words answers = answer_questions(questions);
  return answers[static_cast<std::size_t>(members.back())][0] >> 1 << 1;
}

Cost simulate_member(const Job& job, int ranks, std::uint64_t& count) {
  std::vector<TensorView> pieces;
  job.for_each([&](const Holders& holders, const TensorView& piece) {
    if (holds(holders, kMember)) pieces.push_back(piece);
  });
  count = pieces.size();
  return cost_of([&] {
    const PieceKeys keys(pieces, ranks);
    const auto report = encode_report(report_of(pieces, keys.holdings(keys.questions())));
  });
}

Cost simulate_keeper(const Job& job, int ranks, std::uint64_t& distinct) {
  Words questions(static_cast<std::size_t>(ranks));
  job.for_each([&](const Holders& holders, const TensorView& piece) {
    ++distinct;
    const std::uint64_t key = piece_key(piece);
    if (key % questions.size() != kMember) return;
    for (const int rank : job.members(holders)) {
      questions[static_cast<std::size_t>(rank)].push_back(key);
    }
  });
  return cost_of([&] { const Words answers = answer_questions(questions); });
}

Cost simulate_root(const Job& job, int ranks, std::uint64_t& extents) {
  std::vector<RankReport> reports(static_cast<std::size_t>(ranks));
  struct Group {
    std::uint64_t id = 0;
    std::vector<int> members;
  };
  std::map<Holders, Group> groups;
  job.for_each([&](const Holders& holders, const TensorView& piece) {
    const auto [it, is_new] = groups.try_emplace(holders);
    Group& group = it->second;
    if (is_new) {
      group.members = job.members(holders);
      group.id = group_of(group.members, ranks);
      for (const int rank : group.members) {
        reports[static_cast<std::size_t>(rank)].groups.push_back(group.id);
      }
    }
    const auto describer =
        static_cast<std::size_t>(group.members[(piece_key(piece) >> 32) % group.members.size()]);
    reports[describer].pieces.push_back(piece);
    reports[describer].piece_group.push_back(group.id);
  });
  return cost_of([&] {
    for (const TensorEntry& tensor : plan_save(reports)) extents += tensor.extents.size();
  });
}

}  // namespace

Simulation simulate_plan(int ranks, std::uint64_t tensors) {
  if (ranks < 2 * kModelRanks || ranks % kModelRanks != 0) {
    fail(Errc::usage,
         "the simulated job has groups of {} ranks: give at least {}, a multiple of {}",
         kModelRanks, 2 * kModelRanks, kModelRanks);
  }
  Simulation result;
  result.ranks = ranks;
  const Job job(ranks, tensors);
  result.tensors = tensors / 3 * 3;
  result.member = simulate_member(job, ranks, result.pieces);
  result.keeper = simulate_keeper(job, ranks, result.distinct);
  result.root = simulate_root(job, ranks, result.extents);
  return result;
}

}  // namespace cairn::bench
