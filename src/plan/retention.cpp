#include "plan/retention.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <tuple>

namespace cairn::detail {
namespace {

using Positions = std::vector<std::size_t>;

class Judge {
 public:
  Judge(const RetentionRequest& request, std::span<const CheckpointFacts> all)
      : request_(request), all_(all), verdicts_(all.size()) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (!all[i].bad) good_.push_back(i);
    }
    // The most recently committed first. A run that was taken back to an older step must not lose
    // its new checkpoints to those of higher steps.
    std::sort(good_.begin(), good_.end(), [&](std::size_t a, std::size_t b) {
      const auto key = [&](std::size_t i) {
        return std::tuple(is_saved(i), std::string_view(all_[i].committed_at), all_[i].step);
      };
      return key(a) > key(b);
    });
  }

  std::vector<Verdict> take() {
    judge_each();
    judge_newest();
    judge_by_policy();
    judge_needed();
    return std::move(verdicts_);
  }

 private:
  bool is_saved(std::size_t i) const { return all_[i].name == request_.saved; }
  void keep(std::size_t i, std::string why) { verdicts_[i].why.push_back(std::move(why)); }

  void judge_each() {
    for (std::size_t i = 0; i < all_.size(); ++i) {
      if (is_saved(i)) keep(i, "just saved");
      if (all_[i].linked) keep(i, "last links to it");
      if (all_[i].pinned) keep(i, "pinned");
      if (!all_[i].needed_by.empty()) keep(i, fmt::format("{} needs it", all_[i].needed_by));
      if (all_[i].bad && !request_.remove_bad) keep(i, "bad, but not to be removed");
    }
  }

  void judge_newest() {
    // What a resumed run begins with.
    const auto newest =
        std::max_element(good_.begin(), good_.end(),
                         [&](std::size_t a, std::size_t b) { return all_[a].step < all_[b].step; });
    if (newest != good_.end()) keep(*newest, "newest");
    const auto verified =
        std::find_if(good_.begin(), good_.end(), [&](std::size_t i) { return all_[i].verified; });
    if (verified != good_.end()) keep(*verified, "last verified");
  }

  void judge_by_policy() {
    const RetentionPolicy& policy = request_.policy;
    for (std::size_t place = 0; place < good_.size(); ++place) {
      const std::size_t i = good_[place];
      if (policy.keep_last == 0) {
        keep(i, "all stay");
        continue;
      }
      if (place < policy.keep_last) keep(i, fmt::format("one of the last {}", policy.keep_last));
      if (policy.keep_every_n_steps != 0 && all_[i].step % policy.keep_every_n_steps == 0) {
        keep(i, fmt::format("step is a multiple of {}", policy.keep_every_n_steps));
      }
    }
    if (policy.keep_best.k != 0 && !is_known(policy.keep_best.metric)) {
      // Misspelt, or not measured yet: which are the best can't be told.
      for (const std::size_t i : good_) {
        keep(i, fmt::format("no checkpoint has the metric '{}'", policy.keep_best.metric));
      }
    }
    for (const std::size_t i : best()) {
      keep(i, fmt::format("one of the best {} by {}", policy.keep_best.k, policy.keep_best.metric));
    }
  }

  bool is_known(const std::string& metric) const {
    return std::any_of(good_.begin(), good_.end(),
                       [&](std::size_t i) { return all_[i].metrics.contains(metric); });
  }

  Positions best() const {
    const KeepBest& rule = request_.policy.keep_best;
    if (rule.k == 0) return {};
    const auto value = [&](std::size_t i) {
      const double metric = all_[i].metrics.at(rule.metric);
      return rule.mode == MetricOrder::min ? metric : -metric;
    };
    Positions known;
    for (const std::size_t i : good_) {
      const auto metric = all_[i].metrics.find(rule.metric);
      if (metric != all_[i].metrics.end() && !std::isnan(metric->second)) known.push_back(i);
    }
    std::sort(known.begin(), known.end(), [&](std::size_t a, std::size_t b) {
      return std::tuple(value(a), all_[a].step) < std::tuple(value(b), all_[b].step);
    });
    known.resize(std::min<std::size_t>(known.size(), rule.k));
    return known;
  }

  void judge_needed() {
    Positions open;
    for (std::size_t i = 0; i < all_.size(); ++i) {
      if (verdicts_[i].keep()) open.push_back(i);
    }
    while (!open.empty()) {
      const CheckpointFacts& by = all_[open.back()];
      open.pop_back();
      for (std::size_t i = 0; i < all_.size(); ++i) {
        const auto& needs = by.needs;
        if (std::find(needs.begin(), needs.end(), all_[i].name) == needs.end()) continue;
        if (!verdicts_[i].keep()) open.push_back(i);
        keep(i, fmt::format("{} needs it", by.name));
      }
    }
  }

  const RetentionRequest& request_;
  std::span<const CheckpointFacts> all_;
  std::vector<Verdict> verdicts_;
  Positions good_;
};

}  // namespace

std::vector<Verdict> judge_retention(const RetentionRequest& request,
                                     std::span<const CheckpointFacts> checkpoints) {
  return Judge(request, checkpoints).take();
}

std::vector<std::size_t> removal_order(std::span<const CheckpointFacts> checkpoints,
                                       std::span<const Verdict> verdicts) {
  Positions left;
  for (std::size_t i = 0; i < checkpoints.size(); ++i) {
    if (!verdicts[i].keep()) left.push_back(i);
  }
  std::sort(left.begin(), left.end(), [&](std::size_t a, std::size_t b) {
    const auto key = [&](std::size_t i) {
      return std::tuple(std::string_view(checkpoints[i].committed_at), checkpoints[i].step);
    };
    return key(a) < key(b);
  });
  Positions order;
  while (!left.empty()) {
    std::set<std::string_view> needed;
    for (const std::size_t i : left) {
      needed.insert(checkpoints[i].needs.begin(), checkpoints[i].needs.end());
    }
    auto next = std::find_if(left.begin(), left.end(),
                             [&](std::size_t i) { return !needed.contains(checkpoints[i].name); });
    if (next == left.end()) next = left.begin();  // a circle, which nothing can read anyway
    order.push_back(*next);
    left.erase(next);
  }
  return order;
}

}  // namespace cairn::detail
