#include "cairn/sampler.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/throw.hpp"
#include "cairn/placement.hpp"
#include "trainer/shuffle.hpp"

namespace cairn {

using Json = nlohmann::json;
using detail::fail;

Sampler::Sampler(const SamplerOptions& options, int rank, int ranks)
    : options_(options), rank_(rank), ranks_(ranks) {
  if (options.size == 0 || options.batch == 0 || rank < 0 || rank >= ranks) {
    fail(Errc::usage, "a sampler of {} samples in batches of {} for rank {} of {} can't be",
         options.size, options.batch, rank, ranks);
  }
  if (options.size > std::numeric_limits<std::uint64_t>::max() / 4) {
    fail(Errc::usage, "a sampler of {} samples: at most 2^62 are possible", options.size);
  }
  if (usable() == 0) {
    fail(Errc::usage, "drop_last leaves nothing of {} samples in batches of {}", options.size,
         options.batch);
  }
}

std::uint64_t Sampler::usable() const {
  return options_.drop_last ? options_.size / options_.batch * options_.batch : options_.size;
}

Sampler::Position Sampler::after(std::uint64_t epoch, std::uint64_t at) const {
  // A resume with another batch may have left less than a batch that drop_last would leave out.
  const std::uint64_t least = options_.drop_last ? options_.batch : 1;
  return usable() - std::min(at, usable()) < least ? Position{epoch + 1, 0} : Position{epoch, at};
}

Sampler::Batch Sampler::next() {
  Batch batch;
  batch.epoch = drawn_.epoch;
  batch.begin = drawn_.at;
  batch.count = std::min(options_.batch, usable() - drawn_.at);
  const Range share = balanced_range(batch.count, ranks_, rank_);
  const detail::Shuffle shuffle(options_.size, options_.seed, batch.epoch);
  batch.samples.reserve(share.count);
  for (std::uint64_t i = 0; i < share.count; ++i) {
    const std::uint64_t place = batch.begin + share.start + i;
    batch.samples.push_back(options_.shuffle ? shuffle(place) : place);
  }
  drawn_ = after(batch.epoch, batch.begin + batch.count);
  batch.last = drawn_.epoch != batch.epoch;
  return batch;
}

void Sampler::done(const Batch& batch) {
  if (!options_.read_ahead) return;  // what is drawn counts
  if (batch.epoch != used_.epoch || batch.begin != used_.at) {
    fail(Errc::usage,
         "the batch at sample {} of epoch {} was used, but the next one is that at sample {} of "
         "epoch {}: tell each batch once, in the order in which they were drawn, and throw away "
         "what was read ahead before a load",
         batch.begin, batch.epoch, used_.at, used_.epoch);
  }
  used_ = after(batch.epoch, batch.begin + batch.count);
}

std::string Sampler::state() const {
  const Position& position = options_.read_ahead ? used_ : drawn_;
  return Json{{"size", options_.size},
              {"seed", options_.seed},
              {"shuffle", options_.shuffle},
              {"epoch", position.epoch},
              {"position", position.at}}
      .dump();
}

void Sampler::load(const std::string& state) {
  try {
    const Json json = Json::parse(state);
    const auto size = json.at("size").get<std::uint64_t>();
    const auto seed = json.at("seed").get<std::uint64_t>();
    const auto shuffle = json.at("shuffle").get<bool>();
    if (size != options_.size || seed != options_.seed || shuffle != options_.shuffle) {
      fail(Errc::mismatch,
           "the checkpoint was in the middle of {} samples (seed {}, shuffle {}), but the sampler "
           "has {} (seed {}, shuffle {}): its position means nothing here; resume with the same "
           "data, or load without a warm start",
           size, seed, shuffle, options_.size, options_.seed, options_.shuffle);
    }
    const auto epoch = json.at("epoch").get<std::uint64_t>();
    const auto at = json.at("position").get<std::uint64_t>();
    drawn_ = used_ = after(epoch, at);
  } catch (const Json::exception& error) {
    fail(Errc::corrupt, "the state of a sampler can't be understood ({})", error.what());
  }
}

/// Also what was drawn and not used: a loader that reads ahead still has it.
std::function<void()> Sampler::undo() {
  return [this, drawn = drawn_, used = used_] {
    drawn_ = drawn;
    used_ = used;
  };
}

std::string Sampler::resized(int saved_ranks, int ranks) {
  return fmt::format("goes on at sample {} of {} in epoch {}, divided over {} ranks instead of {}",
                     drawn_.at, usable(), drawn_.epoch, ranks, saved_ranks);
}

}  // namespace cairn
