#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cairn/export.hpp"
#include "cairn/tensor_view.hpp"

namespace cairn {

/// Whose a state is.
enum class StateScope : std::uint8_t {
  shared,    ///< it means the same on all ranks: rank 0's is saved, and all ranks get it
  per_rank,  ///< each rank saves its own, and gets it back where the number of ranks is the same
};

/// A part of a trainer's state that cairn does not know: added by CheckpointManager::add_state, it
/// is in every checkpoint, and a warm start gives it back.
class CAIRN_EXPORT Stateful {
 public:
  virtual ~Stateful();
  /// JSON text. Local.
  virtual std::string state() const = 0;
  /// Takes what state() gave, before a load changes anything else. Local; called on every rank. May
  /// throw to refuse the load.
  virtual void load(const std::string& state) = 0;
  virtual StateScope scope() const { return StateScope::shared; }
  /// Tensors that are saved with it and filled by a load, as `<name of the state>/<name>`. Local;
  /// the memory must stay where it is during a save or load.
  virtual std::vector<MutableTensorView> tensors() { return {}; }
  /// Called in a load onto another number of ranks, after the tensors are in: on a shared state
  /// after load(), on one of a rank instead of load(). Says in words what became of it, for
  /// LoadReport::states. Local; must not throw.
  virtual std::string resized(int saved_ranks, int ranks);
  /// What puts the state back as it is now, should the load fail after load() was called: by
  /// default load() of what state() says now. A state that knows more than it saves overrides it.
  /// Local; the result is called at most once, before the object changes otherwise.
  virtual std::function<void()> undo();
};

/// The scale of losses in mixed precision, which falls when gradients overflow and grows again when
/// they do not. Any number of ranks: it is the same on all.
class CAIRN_EXPORT LossScaler : public Stateful {
 public:
  explicit LossScaler(double scale = 65536, double growth = 2, double backoff = 0.5,
                      std::uint64_t growth_interval = 2000);
  double scale() const { return scale_; }
  /// After each step; `overflow`: a gradient was not finite on any rank, and the step was left out.
  /// Local; every rank says the same.
  void update(bool overflow);

  std::string state() const override;
  void load(const std::string& state) override;  // Errors: corrupt

 private:
  double scale_;
  double growth_;
  double backoff_;
  std::uint64_t growth_interval_;
  std::uint64_t good_steps_ = 0;
};

}  // namespace cairn
