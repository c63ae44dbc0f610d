#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <vector>

#include "cairn/checkpoint.hpp"
#include "checkpoint/background.hpp"
#include "checkpoint/delta_step.hpp"
#include "checkpoint/steps.hpp"

namespace cairn {

struct Saver::Impl {
  const Comm& comm;
  SaveOptions options;
  std::unique_ptr<detail::Engine> engine;
  std::shared_ptr<detail::SaveLayout> layout;  // of all tensors of the last structure
  detail::DeltaStep delta;
  std::exception_ptr observer_failure;  // of the progress callback, until all ranks agree on it
  std::unique_ptr<detail::Background> background;  // from the first save in the background on

  Impl(const Comm& c, SaveOptions o);

  /// Steps 1 and 2. Collective.
  detail::SaveStart begin(const detail::SaveRequest& request);
  /// What the save of `request` writes, after begin(): `layout`, or less of it. Collective.
  std::shared_ptr<detail::SaveLayout> layout_for(const detail::SaveRequest& request);
  void save(const detail::SaveRequest& request);

  // In the background; Collective as the members of Saver.
  AsyncSave save_async(const detail::SaveRequest& request);
  void prepare(const detail::SaveRequest& request);
  void poll();
  void wait_for_at_most(std::uint64_t left);
  void close();

 private:
  void enter(SaveStep step);
  /// A callback that throws on one rank between two collectives must not leave the others waiting.
  std::function<void(const SaveProgress&)> guarded(
      std::function<void(const SaveProgress&)> progress);
  void require_background();
  bool make_way();
  void deliver(std::uint64_t ended);
  std::uint64_t take_memory(std::uint64_t bytes);
  double staging_seconds(std::uint64_t bytes, std::uint64_t wanted, std::uint64_t room) const;
  void stage(detail::StagedSave& staged, bool streams);

  std::uint64_t delivered = 0;  // saves in the background whose end is known here
  double copy_speed = 1;        // bytes per second
};

}  // namespace cairn
