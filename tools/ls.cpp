#include <fmt/format.h>

#include <cmath>

#include "base/json_numbers.hpp"
#include "checkpoint/run_listing.hpp"
#include "output.hpp"
#include "program.hpp"
#include "run_options.hpp"
#include "verbs.hpp"

namespace cairn::tool {
namespace {

using detail::CheckpointFacts;
using detail::Mark;
using detail::RunCheckpoint;
using detail::RunLeftover;
using detail::RunListing;
using detail::Verdict;

/// What of a run's directory one look found.
struct Listed {
  RunListing listing;
  std::vector<Verdict> verdicts;  ///< of the checkpoints
  std::vector<std::string> why;   ///< by listing.others: what is the matter
  bool judged = false;            ///< the command line gave a policy
};

Listed look(const LsOptions& options) {
  Listed listed;
  const RetentionPolicy policy = policy_of(options.keep);
  listed.listing = detail::list_run(run_directory(options.run), /*may_call_hdf5=*/true);
  const auto facts = detail::facts_of(listed.listing);
  listed.verdicts = detail::judge_retention({policy, {}}, facts);
  for (const RunLeftover& other : listed.listing.others) {
    listed.why.push_back(detail::why_not_committed(other.path));
  }
  listed.judged = policy.keep_last != 0;
  return listed;
}

/// Whether it is the checkpoint that a load of the run begins with.
bool is_newest(const RunListing& listing, std::size_t position) {
  const auto& all = listing.checkpoints;
  if (all[position].bad) return false;
  for (std::size_t later = position + 1; later < all.size(); ++later) {
    if (!all[later].bad) return false;
  }
  return true;
}

std::vector<std::string> marks_of(const RunListing& listing, std::size_t position) {
  const RunCheckpoint& one = listing.checkpoints[position];
  std::vector<std::string> marks;
  if (is_newest(listing, position)) marks.emplace_back("newest");
  if (one.facts.linked) marks.emplace_back("last");
  if (one.facts.pinned) marks.emplace_back("pinned");
  if (one.verified) marks.push_back(fmt::format("verified {}", one.verified->at));
  if (one.bad) marks.push_back(fmt::format("bad since {}: {}", one.bad->at, one.bad->reason));
  return marks;
}

std::string metrics_text(const CheckpointFacts& facts) {
  std::vector<std::string> texts;
  for (const auto& [name, value] : facts.metrics) {
    texts.push_back(fmt::format("{}={:.6g}", name, value));
  }
  return joined(texts, " ");
}

std::string verdict_text(const Verdict& verdict) {
  return verdict.keep() ? "stays: " + joined(verdict.why, ", ") : "goes";
}

std::string text_of(const Listed& listed) {
  const RunListing& listing = listed.listing;
  Table table;
  if (!listing.checkpoints.empty()) {
    table.add({"step", "epoch", "committed", "size", "writers", "metrics", "marks",
               listed.judged ? "policy" : ""});
  }
  for (std::size_t i = 0; i < listing.checkpoints.size(); ++i) {
    const RunCheckpoint& one = listing.checkpoints[i];
    table.add({fmt::format("{}", one.facts.step), one.epoch ? fmt::format("{}", *one.epoch) : "-",
               one.commit.committed_at, human_bytes(one.bytes),
               fmt::format("{}", one.commit.writers), metrics_text(one.facts),
               joined(marks_of(listing, i), ", "),
               listed.judged ? verdict_text(listed.verdicts[i]) : ""});
  }
  std::string text = table.text();
  if (listing.checkpoints.empty()) text = "no committed checkpoint\n";
  for (std::size_t i = 0; i < listing.others.size(); ++i) {
    const RunLeftover& other = listing.others[i];
    text += fmt::format("not usable: {} ({}): {}\n", other.path.filename().string(),
                        human_bytes(other.bytes), listed.why[i]);
  }
  for (const RunLeftover& partial : listing.partial) {
    text += fmt::format("partial: {} ({}): a save on its way, or one that died\n",
                        partial.path.filename().string(), human_bytes(partial.bytes));
  }
  return text;
}

Json json_of(const std::optional<Mark>& mark) {
  if (!mark) return nullptr;
  return {{"reason", mark->reason}, {"at", mark->at}, {"host", mark->host}};
}

Json json_of(const Listed& listed) {
  const RunListing& listing = listed.listing;
  Json json = {
      {"checkpoints", Json::array()}, {"not_usable", Json::array()}, {"partial", Json::array()}};
  for (std::size_t i = 0; i < listing.checkpoints.size(); ++i) {
    const RunCheckpoint& one = listing.checkpoints[i];
    Json metrics = Json::object();
    for (const auto& [name, value] : one.facts.metrics) metrics[name] = detail::number_to_json(value);
    json["checkpoints"].push_back({{"path", one.path.string()},
                                   {"step", one.facts.step},
                                   {"epoch", one.epoch ? Json(*one.epoch) : Json()},
                                   {"committed_at", one.commit.committed_at},
                                   {"bytes", one.bytes},
                                   {"writers", one.commit.writers},
                                   {"metrics", std::move(metrics)},
                                   {"newest", is_newest(listing, i)},
                                   {"last", one.facts.linked},
                                   {"pinned", one.facts.pinned},
                                   {"verified", json_of(one.verified)},
                                   {"bad", json_of(one.bad)},
                                   {"needs", one.facts.needs},
                                   {"stays", listed.verdicts[i].keep()},
                                   {"why", listed.verdicts[i].why}});
  }
  for (std::size_t i = 0; i < listing.others.size(); ++i) {
    const RunLeftover& other = listing.others[i];
    json["not_usable"].push_back(
        {{"path", other.path.string()}, {"bytes", other.bytes}, {"reason", listed.why[i]}});
  }
  for (const RunLeftover& partial : listing.partial) {
    json["partial"].push_back({{"path", partial.path.string()}, {"bytes", partial.bytes}});
  }
  return json;
}

}  // namespace

int ls(const Comm& comm, const LsOptions& options) {
  Listed listed;
  agree(comm, "ls", [&] {
    if (comm.is_root()) listed = look(options);
  });
  print(comm, [&] { return options.json ? to_text(json_of(listed)) : text_of(listed); });
  return kFine;
}

}  // namespace cairn::tool
