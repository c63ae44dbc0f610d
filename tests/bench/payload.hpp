#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/checkpoint.hpp"

namespace cairn::bench {

/// What of a payload a rank has.
struct Division {
  int rank = 0;
  int ranks = 1;
  bool columns = false;     ///< large tensors are split along their last dimension, not the first
  bool replicated = false;  ///< every rank has all of all
};

/// One rank's share of a payload, in memory. The f32 values are a function of tensor and element
/// alone, so that what a container holds does not depend on the number of ranks.
class Payload {
 public:
  /// `kind`: large (100 tensors of 16 MiB, 300 of 4 KiB), many (20,000 of 4 KiB) or mixed (a
  /// GPT-2-like model with Adam state); `quick` shrinks it to about a twentieth, `tensors` is
  /// another number of them for many. Tensors from 1 MiB on are split over the ranks, smaller ones
  /// belong to one rank each. Local. Errors: usage.
  Payload(std::string_view kind, bool quick, std::optional<std::uint64_t> tensors,
          const Division& division);

  /// Views of the buffers; valid as long as the payload.
  StateView state() const;
  std::vector<MutableTensorView> targets() const;

  std::uint64_t tensors() const { return tensors_; }    ///< of all ranks
  std::uint64_t my_bytes() const { return my_bytes_; }  ///< of this rank

  /// Changes a value of about this share of the tensors, the same ones each time.
  void change(double share);
  /// Overwrites the buffers with zeros, and tells whether they hold the generated values.
  void clear();
  bool is_intact() const;

 private:
  struct Piece {
    std::string name;
    Placement placement;
    std::uint64_t tensor = 0;  ///< position among all tensors: what the values depend on
    std::unique_ptr<float[]> values;
  };

  void add(const std::string& name, Shape shape, const Division& division);

  std::string kind_;
  std::vector<Piece> pieces_;
  std::uint64_t tensors_ = 0;
  std::uint64_t my_bytes_ = 0;
};

}  // namespace cairn::bench
