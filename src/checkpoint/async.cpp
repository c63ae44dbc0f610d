// A save in the background:
//  1. make way     earlier saves: their failures are told, and the wish for a busy time is followed
//  2. begin        steps 1 and 2 of the protocol (docs/design.md, "Saving"), on the program's
//                  thread
//  3. stage        this rank's share is copied, block by block; the background writes along
//  4. return       the state may change
//  5. carry out    steps 3 to 7, on the background's thread; its collectives go through poll()
//                  where MPI allows one thread only
#include <chrono>
#include <cstdio>
#include <cstring>
#include <limits>
#include <thread>

#include "base/throw.hpp"
#include "checkpoint/saver.hpp"
#include "manifest/names.hpp"

namespace cairn {

using namespace detail;

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Between two looks at what another thread does.
void pause() { std::this_thread::sleep_for(std::chrono::microseconds(100)); }

}  // namespace

AsyncSave::AsyncSave(std::shared_ptr<const State> state) : state_(std::move(state)) {}
std::uint64_t AsyncSave::step() const { return state_->step; }
bool AsyncSave::skipped() const { return state_->skipped; }
bool AsyncSave::staged() const { return state_->staged; }
bool AsyncSave::durable() const { return state_->durable; }
std::optional<Error> AsyncSave::error() const {
  const std::lock_guard lock(state_->mutex);
  return state_->error;
}
StagingTimes AsyncSave::times() const {
  const std::lock_guard lock(state_->mutex);
  return state_->times;
}

void Saver::Impl::require_background() {
  agree(comm, "save: begin", [&] {
    if (options.engine != EngineKind::direct) {
      fail(Errc::usage, "saves in the background need the engine 'direct', not '{}'",
           to_string(options.engine));
    }
  });
  if (!background) background = std::make_unique<Background>(comm, options);
}

void Saver::Impl::deliver(std::uint64_t ended) {
  while (delivered < ended) {
    const std::optional<Error> error = background->take_error(delivered++);
    if (!error) continue;
    if (options.async.on_failure != OnFailure::warn) throw Error(*error);
    if (comm.is_root()) fmt::print(stderr, "cairn: warning: {}\n", error->what());
  }
}

void Saver::Impl::poll() {
  if (background && delivered != background->begun()) deliver(background->poll());
}

void Saver::Impl::wait_for_at_most(std::uint64_t left) {
  while (background && background->begun() - delivered > left) {
    deliver(background->poll());
    if (background->begun() - delivered > left) pause();
  }
}

/// Whether there is to be a save, when others may be on their way. Collective.
bool Saver::Impl::make_way() {
  poll();
  switch (options.async.when_busy) {
    case WhenBusy::wait:
      wait_for_at_most(0);
      return true;
    case WhenBusy::queue:
      // What has changed since a save is known only when that one is committed.
      wait_for_at_most(options.delta ? 0 : 1);
      return true;
    case WhenBusy::skip:
      return background->begun() == delivered;
  }
  return true;
}

/// Room for the copies of a save of `bytes`, as far as the budget goes; how many can be taken at
/// once.
std::uint64_t Saver::Impl::take_memory(std::uint64_t bytes) {
  StagingRoom& room = background->room();
  const bool queues = options.async.when_busy == WhenBusy::queue && !options.delta;
  const std::uint64_t copies = queues ? 2 : 1;
  const std::uint64_t budget = options.async.budget_bytes;
  static_assert(StagingRoom::kLeastBytes <= AsyncOptions::kLeastBudgetBytes);
  if (budget != 0 && budget < AsyncOptions::kLeastBudgetBytes) {
    fail(Errc::usage, "async.budget_bytes is {}; at least {} are needed", budget,
         AsyncOptions::kLeastBudgetBytes);
  }
  const bool first = room.blocks() == 0;
  room.grow(std::min(copies * StagingRoom::room_for(bytes),
                     budget == 0 ? std::numeric_limits<std::uint64_t>::max() : budget));
  if (first) copy_speed = room.measure_copy_speed();
  return room.free_blocks() * StagingRoom::kBlockBytes;
}

/// What staging `bytes` will take, for which `wanted` bytes of room are needed and `room` are
/// there.
double Saver::Impl::staging_seconds(std::uint64_t bytes, std::uint64_t wanted,
                                    std::uint64_t room) const {
  const double copies = static_cast<double>(bytes) / copy_speed;
  if (wanted <= room) return copies;
  const double known = background->write_speed();
  return copies + static_cast<double>(wanted - room) / (known > 0 ? known : copy_speed);
}

/// Copies the share of this rank. Collective; all ranks leave together, so that what fails on one
/// fails on all. `streams`: on some rank there is no room for all at once.
void Saver::Impl::stage(StagedSave& staged, bool streams) {
  // Nobody copies the rest of a save that fails here: its thread must not wait for that.
  const auto guarded = [&](auto&& copy) {
    try {
      copy();
    } catch (...) {
      staged.abort();
      throw;
    }
  };
  if (!streams || background->is_independent()) {
    // Others may wait for this rank's thread before they meet.
    return agree(comm, "save: stage", [&] { guarded([&] { staged.stage(); }); });
  }
  // The background needs polls to get on and make room: all ranks give them until all are done.
  // What ends that early may be another rank.
  guarded([&] {
    for (std::uint64_t unfinished[1] = {1}; unfinished[0] != 0;) {
      agree(comm, "save: stage", [&] { unfinished[0] = staged.advance() ? 0 : 1; });
      comm.all_reduce_max(std::span<std::uint64_t>(unfinished));
      background->poll();  // failures are told by the next poll(), wait() or save
      if (unfinished[0] != 0) pause();
    }
  });
}

AsyncSave Saver::Impl::save_async(const SaveRequest& request) {
  const auto start_time = Clock::now();
  require_background();
  auto known = std::make_shared<AsyncSave::State>();
  known->step = request.state.step;
  if (!make_way()) {
    known->skipped = true;
    return AsyncSave(known);
  }
  auto save = std::make_unique<BackgroundSave>();
  save->start = begin(request);
  const std::shared_ptr<SaveLayout> chosen = layout_for(request);
  std::uint64_t most[2] = {0, 0};  // whether a rank streams, nanoseconds of the slowest one
  std::vector<WriteItem> items;
  agree(comm, "save: stage", [&] {
    items = items_of(request.state, *chosen);
    const std::uint64_t bytes = bytes_of(items, chosen->container.tensors);
    const std::uint64_t room = take_memory(bytes);
    const std::uint64_t wanted = StagingRoom::room_for(bytes);
    known->times.bytes = bytes;
    most[0] = wanted > room ? 1 : 0;
    most[1] = static_cast<std::uint64_t>(1e9 * staging_seconds(bytes, wanted, room));
  });
  comm.all_reduce_max(std::span<std::uint64_t>(most));
  const bool streams = most[0] != 0;
  std::shared_ptr<StagedSave> staged;
  agree(comm, "save: stage", [&] {
    save->target = request.target;
    save->partial = request.partial;
    save->state.step = request.state.step;
    save->layout = chosen;
    save->retry = options.async.on_failure == OnFailure::retry && !streams;
    save->staged = std::make_shared<StagedSave>(background->room(), chosen->container.tensors,
                                                std::move(items), save->retry);
    save->known = known;
    staged = save->staged;
  });
  background->begin(std::move(save));
  const auto stage_time = Clock::now();
  stage(*staged, streams);
  known->staged = true;
  const std::lock_guard lock(known->mutex);
  known->times.predicted_s = 1e-9 * static_cast<double>(most[1]);
  known->times.stalled_s = seconds_since(stage_time);
  known->times.call_s = seconds_since(start_time);
  return AsyncSave(known);
}

void Saver::Impl::prepare(const SaveRequest& request) {
  require_background();
  begin(request);
  agree(comm, "save: prepare", [&] {
    std::uint64_t bytes = 0;
    for (const LayoutItem& item : layout->items) {
      bytes +=
          item.extent.box.elements() * item_bytes(layout->container.tensors[item.tensor].dtype);
    }
    take_memory(bytes);
  });
}

void Saver::Impl::close() {
  wait_for_at_most(0);
  if (background) background->close();
  background.reset();
  delivered = 0;
}

AsyncSave Saver::save_async(const std::filesystem::path& target, const StateView& state) {
  return impl_->save_async({target, names::partial_file(target), state, impl_->options});
}
void Saver::prepare(const std::filesystem::path& target, const StateView& state) {
  impl_->prepare({target, names::partial_file(target), state, impl_->options});
}
void Saver::poll() { impl_->poll(); }
void Saver::wait() { impl_->wait_for_at_most(0); }
void Saver::close() { impl_->close(); }

}  // namespace cairn
