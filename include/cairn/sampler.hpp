#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cairn/export.hpp"
#include "cairn/state.hpp"

namespace cairn {

struct SamplerOptions {
  std::uint64_t size = 0;   ///< of the data set, from 1
  std::uint64_t batch = 1;  ///< samples of a step, of all ranks together
  std::uint64_t seed = 0;
  bool shuffle = true;     ///< another order in each epoch; the same for any number of ranks
  bool drop_last = false;  ///< leave out what is too little for a whole batch at an epoch's end
  /// Batches are drawn before they are used (a loader that reads ahead): what is saved is how far
  /// done() was told, so that a resume draws again what was read and not used.
  bool read_ahead = false;
};

/// Divides a data set over the ranks, so that in each epoch each sample is drawn once, by one rank,
/// also when a run goes on in mid-epoch on another number of ranks. Its position is that of all
/// ranks together. All members are Local; every rank draws equally often.
class CAIRN_EXPORT Sampler : public Stateful {
 public:
  struct Batch {
    std::uint64_t epoch = 0;
    std::uint64_t begin = 0;  ///< the position of the step's samples in the epoch's order
    std::uint64_t count = 0;  ///< how many there are, of all ranks
    std::vector<std::uint64_t> samples;  ///< this rank's: a balanced share, perhaps none
    bool last = false;                   ///< of its epoch
  };

  /// Errors: usage.
  Sampler(const SamplerOptions& options, int rank, int ranks);

  /// The samples of the next step; after the last batch of an epoch the next epoch begins.
  Batch next();
  /// `batch` was used. Needed with `read_ahead` alone. Errors: usage, where it is not the first of
  /// those that were drawn and not used: told twice, out of order, or drawn before a load that went
  /// well, whose batches a loader has to throw away.
  void done(const Batch& batch);

  std::uint64_t epoch() const { return drawn_.epoch; }
  std::uint64_t position() const { return drawn_.at; }  ///< in the epoch

  std::string state() const override;
  /// Errors: mismatch (another data set, seed or order), corrupt.
  void load(const std::string& state) override;
  std::function<void()> undo() override;
  std::string resized(int saved_ranks, int ranks) override;

 private:
  struct Position {
    std::uint64_t epoch = 0;
    std::uint64_t at = 0;
  };
  std::uint64_t usable() const;
  Position after(std::uint64_t epoch, std::uint64_t at) const;

  SamplerOptions options_;
  int rank_;
  int ranks_;
  Position drawn_;
  Position used_;
};

}  // namespace cairn
