#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>

#include "base/crc64.hpp"
#include "cairn/checkpoint.hpp"
#include "support/mpi_test.hpp"
#include "support/sample_state.hpp"

namespace cairn {
namespace {

using namespace test;

/// CRC-64/XZ of every whole tensor, by name: what any number of ranks must record.
std::map<std::string, std::uint64_t> digests_of_whole(std::uint64_t version) {
  std::map<std::string, std::uint64_t> digests;
  for (const Piece& piece : sample_pieces(Cut::replicated, 1, 0, version)) {
    digests[piece.name] = ~detail::crc64_update(~std::uint64_t{0}, piece.bytes);
  }
  return digests;
}

SaveOptions options_for(EngineKind engine, bool statistics = false) {
  SaveOptions options;
  options.engine = engine;
  options.statistics = statistics;
  return options;
}

/// `more`: tensors besides the sample's.
void expect_digests(const Manifest& manifest, std::uint64_t version, std::size_t more = 0) {
  std::size_t seen = 0;
  for (const auto& [name, digest] : digests_of_whole(version)) {
    const TensorEntry* tensor = manifest.find(name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(tensor->content_digest(), digest) << name;
    ++seen;
  }
  EXPECT_EQ(seen + more + 1, manifest.tensors.size());  // and ranks/rng
}

TEST(ContentDigest, DependsOnTheContentAlone) {
  const auto dir = scratch();
  std::uint64_t step = 0;
  for (const EngineKind engine : {EngineKind::direct, EngineKind::mpio}) {
    for (const Cut cut : kAllCuts) {
      Saver saver(world(), options_for(engine));
      for (const std::uint64_t version : {1U, 2U}) {
        const auto pieces = sample_pieces(cut, world().size(), world().rank(), version);
        const auto path = checkpoint_path(dir, ++step);
        saver.save(path, sample_state(pieces, world().rank(), step));
        expect_digests(open_checkpoint(world(), path), version);
      }
    }
  }
}

/// A tensor of which every rank writes more than the least budget has room for; not where it is
/// replicated on many ranks, for the sake of the machine. Its columns lie in rows.
class Wide {
 public:
  static constexpr const char* kName = "model/wide";

  explicit Wide(Cut cut) {
    const int ranks = world().size();
    const bool few = cut == Cut::replicated && ranks > 3;
    shape_ = {512, std::uint64_t{9 << 10} * (few ? 1 : static_cast<unsigned>(ranks)) + 1};
    placement_ = cut == Cut::columns ? Placement::split(shape_, 1, ranks, world().rank())
                 : cut == Cut::flat  ? Placement::flat_split(shape_, ranks, world().rank())
                                     : Placement::replicated(shape_);
    streams_ = !few;
    const Box& box = placement_.box;
    if (cut == Cut::columns) {
      for (std::uint64_t row = 0; row < shape_[0]; ++row) {
        append(row * shape_[1] + box.start[1], box.count[1], values_);
      }
    } else {
      append(cut == Cut::flat ? box.start[0] : 0, placement_.elements(), values_);
    }
  }

  bool streams() const { return streams_; }
  TensorView view() const {
    return {kName, DType::f32, placement_, reinterpret_cast<const std::byte*>(values_.data())};
  }
  void overwrite() { std::fill(values_.begin(), values_.end(), -77.0F); }

  /// Digest and statistics of all of it, row by row.
  std::pair<std::uint64_t, Statistics> expected() const {
    std::uint64_t digest = ~std::uint64_t{0};
    Statistics statistics;
    statistics.sum_squares = 0;
    for (std::uint64_t row = 0; row < shape_[0]; ++row) {
      std::vector<float> values;
      append(row * shape_[1], shape_[1], values);
      digest = detail::crc64_update(digest, std::as_bytes(std::span(values)));
      for (const double value : values) {
        statistics.min = std::min(statistics.min, value);
        statistics.max = std::max(statistics.max, value);
        statistics.sum_squares += value * value;
      }
    }
    return {~digest, statistics};
  }

 private:
  /// Whole numbers, so that sums of their squares are exact in any order.
  static void append(std::uint64_t first, std::uint64_t count, std::vector<float>& values) {
    for (std::uint64_t i = first; i < first + count; ++i) {
      values.push_back(static_cast<float>(i % 1021) - 3);
    }
  }

  Shape shape_;
  Placement placement_;
  std::vector<float> values_;
  bool streams_ = false;
};

TEST(ContentDigest, IsTheSameFromTheBackgroundWithAnyBudgetAndSoAreStatistics) {
  const auto dir = scratch();
  std::uint64_t step = 0;
  for (const Cut cut : {Cut::columns, Cut::flat, Cut::replicated}) {
    for (const std::uint64_t budget : {16U << 20, 512U << 20}) {
      SaveOptions options = options_for(EngineKind::direct, /*statistics=*/true);
      options.durable = false;
      options.async.budget_bytes = budget;
      Saver saver(world(), options);
      Wide wide(cut);
      auto pieces = sample_pieces(cut, world().size(), world().rank());
      const auto path = checkpoint_path(dir, ++step);
      StateView state = sample_state(pieces, world().rank(), step);
      state.tensors.insert(state.tensors.begin() + 20, wide.view());
      const AsyncSave save = saver.save_async(path, state);
      EXPECT_EQ(save.times().bytes > budget, wide.streams() && budget == 16U << 20);
      wide.overwrite();
      for (Piece& piece : pieces) std::fill(piece.bytes.begin(), piece.bytes.end(), std::byte{9});
      saver.close();
      const Manifest manifest = open_checkpoint(world(), path);
      expect_digests(manifest, 1, /*more=*/1);
      EXPECT_EQ(manifest.find("model/counting.bf16")->statistics->sum_squares, 140);
      if (!world().is_root()) continue;
      const TensorEntry* found = manifest.find(Wide::kName);
      const auto [digest, statistics] = wide.expected();
      EXPECT_EQ(found->content_digest(), digest) << to_string(cut);
      EXPECT_EQ(found->statistics->min, statistics.min);
      EXPECT_EQ(found->statistics->max, statistics.max);
      EXPECT_EQ(found->statistics->sum_squares, statistics.sum_squares);
      EXPECT_EQ(found->statistics->nan + found->statistics->inf, 0U);
    }
  }
}

/// What sample_pieces' "model/counting.f32" and an f32 tensor with odd values must show.
TEST(RecordedStatistics, AreThoseOfTheWholeTensor) {
  const auto dir = scratch();
  std::uint64_t step = 0;
  for (const EngineKind engine : {EngineKind::direct, EngineKind::mpio}) {
    for (const Cut cut : kAllCuts) {
      Saver saver(world(), options_for(engine, /*statistics=*/true));
      const auto pieces = sample_pieces(cut, world().size(), world().rank());
      const auto path = checkpoint_path(dir, ++step);
      saver.save(path, sample_state(pieces, world().rank(), step));
      const Manifest manifest = open_checkpoint(world(), path);
      for (const TensorEntry& tensor : manifest.tensors) {
        ASSERT_TRUE(tensor.statistics.has_value()) << tensor.name;
      }
      for (const char* dtype : {"f64", "f32", "f16", "bf16", "f8_e4m3fn", "i16", "u64"}) {
        const auto found =
            manifest.find("model/counting." + std::string(dtype))->statistics.value();
        EXPECT_EQ(found.min, 0) << dtype;
        EXPECT_EQ(found.max, 7) << dtype;
        EXPECT_EQ(found.sum_squares, 140) << dtype;
        EXPECT_EQ(found.nan + found.inf, 0U) << dtype;
      }
      const Piece whole = sample_pieces(Cut::replicated, 1, 0).at(38);
      ASSERT_EQ(whole.name, "model/deep");
      double squares = 0;
      for (std::size_t at = 0; at < whole.bytes.size(); at += 4) {
        std::int32_t value = 0;
        std::memcpy(&value, whole.bytes.data() + at, 4);
        squares += static_cast<double>(value) * static_cast<double>(value);
      }
      EXPECT_NEAR(manifest.find("model/deep")->statistics->sum_squares / squares, 1, 1e-12);
      EXPECT_EQ(manifest.find("model/empty")->statistics->max,
                -std::numeric_limits<double>::infinity());
    }
  }
}

/// A state of replicated tensors, where this rank may hold other bytes in one element.
class Replicas {
 public:
  explicit Replicas(std::uint64_t elements) : long_(elements, 0.5F), short_(3, 0.25F) {}
  float& at(std::size_t element) { return long_[element]; }
  float& bias(std::size_t element) { return short_[element]; }
  StateView state(std::uint64_t step) const {
    StateView state;
    state.step = step;
    state.tensors.push_back({"model/h.10.weight", DType::f32, Placement::replicated({long_.size()}),
                             reinterpret_cast<const std::byte*>(long_.data())});
    state.tensors.push_back({"model/h.2.bias", DType::f32, Placement::replicated({short_.size()}),
                             reinterpret_cast<const std::byte*>(short_.data())});
    return state;
  }

 private:
  std::vector<float> long_;
  std::vector<float> short_;
};

SaveOptions checking(ReplicaCheck check) {
  SaveOptions options;
  options.replica_check = check;
  return options;
}

TEST(ReplicaCheck, OneBitOnOneRankNamesTensorAndRanks) {
  if (world().size() < 2) return;  // nobody to differ from; the next test runs on one rank
  const auto dir = scratch();
  Saver saver(world(), checking(ReplicaCheck::full));
  Replicas replicas(1'000'003);
  saver.save(checkpoint_path(dir, 1), replicas.state(1));
  const int odd = world().size() - 1;
  if (world().rank() == odd) {
    replicas.at(777'777) = std::nextafter(0.5F, 1.0F);
    replicas.bias(1) = -0.25F;
  }
  for (const bool async : {false, true}) {
    const std::string text = expect_same_error(Errc::mismatch, [&] {
      if (async) {
        saver.save_async(checkpoint_path(dir, 2), replicas.state(2));
        saver.wait();
      } else {
        saver.save(checkpoint_path(dir, 2), replicas.state(2));
      }
    });
    EXPECT_NE(text.find("'model/h.2.bias'"), std::string::npos) << text;  // "h.2" before "h.10"
    EXPECT_NE(text.find("rank " + std::to_string(odd)), std::string::npos) << text;
    EXPECT_NE(text.find("1 more"), std::string::npos) << text;
    EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 1));
  }
  if (world().rank() == odd) replicas.bias(1) = 0.25F;
  const std::string text = expect_same_error(
      Errc::mismatch, [&] { saver.save(checkpoint_path(dir, 2), replicas.state(2)); });
  EXPECT_NE(text.find("'model/h.10.weight'"), std::string::npos) << text;
  EXPECT_EQ(text.find("more"), std::string::npos) << text;
  if (world().rank() == odd) replicas.at(777'777) = 0.5F;
  saver.save(checkpoint_path(dir, 2), replicas.state(2));
  EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 2));
}

TEST(ReplicaCheck, FindsWhatADeltaWouldNotEvenWrite) {
  if (world().size() < 2) return;  // nobody to differ from
  const auto dir = scratch();
  SaveOptions options = checking(ReplicaCheck::full);
  options.delta = true;
  Saver saver(world(), options);
  Replicas replicas(1'000'003);
  saver.save(checkpoint_path(dir, 1), replicas.state(1));
  const auto weight_in = [&](std::uint64_t step) {
    return *open_checkpoint(world(), checkpoint_path(dir, step)).find("model/h.10.weight");
  };
  // Another rank than this one writes the first element, so that the tensor's digest stays.
  const int writer = weight_in(1).extents.at(0).writer;
  const int odd = writer == 0 ? world().size() - 1 : 0;
  if (world().rank() == odd) replicas.at(0) = 7;

  options.replica_check = ReplicaCheck::off;
  Saver blind(world(), options);
  blind.save(checkpoint_path(dir, 2), replicas.state(2));
  EXPECT_NE(weight_in(2).extents.at(0).file, 0U) << "it refers to the file of step 1";

  for (const bool async : {false, true}) {
    const std::string text = expect_same_error(Errc::mismatch, [&] {
      if (async) {
        saver.save_async(checkpoint_path(dir, 3), replicas.state(3));
        saver.wait();
      } else {
        saver.save(checkpoint_path(dir, 3), replicas.state(3));
      }
    });
    EXPECT_NE(text.find("'model/h.10.weight'"), std::string::npos) << text;
    EXPECT_NE(text.find("rank " + std::to_string(odd)), std::string::npos) << text;
    EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 2));
  }
  if (world().rank() == odd) replicas.at(0) = 0.5F;
  saver.save(checkpoint_path(dir, 3), replicas.state(3));
  EXPECT_NE(weight_in(3).extents.at(0).file, 0U);
}

TEST(ReplicaCheck, ASampleFindsWhatChangedEverywhereAndOffLooksAtNothing) {
  const auto dir = scratch();
  Replicas replicas(1'000'003);
  const bool odd = world().rank() == 0 && world().size() > 1;
  if (odd) {
    for (std::size_t i = 0; i < 1'000'003; ++i) replicas.at(i) = 0.75F;
  }
  Saver careless(world(), checking(ReplicaCheck::off));
  careless.save(checkpoint_path(dir, 1), replicas.state(1));
  Saver saver(world(), checking(ReplicaCheck::sample));
  if (world().size() == 1) {
    saver.save(checkpoint_path(dir, 2), replicas.state(2));
    EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 2));
    return;
  }
  const std::string text = expect_same_error(
      Errc::mismatch, [&] { saver.save(checkpoint_path(dir, 2), replicas.state(2)); });
  EXPECT_NE(text.find("'model/h.10.weight'"), std::string::npos) << text;
  EXPECT_NE(text.find("rank 0"), std::string::npos) << text;
}

TEST(ReplicaCheck, AnErrorOnOneRankIsTheSameOnAll) {
  const auto dir = scratch();
  Saver saver(world(), checking(ReplicaCheck::sample));
  const Replicas replicas(1000);
  const std::string last = std::to_string(world().size() - 1);
  {
    const ScopedFault fault("replicas:" + last + ":error");
    const std::string text = expect_same_error(
        Errc::io, [&] { saver.save(checkpoint_path(dir, 1), replicas.state(1)); });
    EXPECT_NE(text.find("rank " + last), std::string::npos) << text;
  }
  saver.save(checkpoint_path(dir, 1), replicas.state(1));
  EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 1));
}

TEST(ReplicaCheck, PiecesOfOneRankAndOfAGroupAreNoMatterOfOthers) {
  // Blocks differ between ranks by right; the grid's odd last rank is a replica of another.
  const auto dir = scratch();
  Saver saver(world(), checking(ReplicaCheck::full));
  std::uint64_t step = 0;
  for (const Cut cut : kAllCuts) {
    auto pieces = sample_pieces(cut, world().size(), world().rank());
    ++step;
    saver.save(checkpoint_path(dir, step), sample_state(pieces, world().rank(), step));
  }
  EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, kAllCuts.size()));
  if (world().size() != 3) return;  // the grid of 3 ranks: ranks 0 and 2 hold the same
  auto pieces = sample_pieces(Cut::grid, 3, world().rank());
  if (world().rank() == 2) pieces.at(0).bytes.at(0) ^= std::byte{1};
  const std::string text = expect_same_error(Errc::mismatch, [&] {
    saver.save(checkpoint_path(dir, 99), sample_state(pieces, world().rank(), 99));
  });
  EXPECT_NE(text.find("rank 0"), std::string::npos) << text;
  EXPECT_NE(text.find("rank 2"), std::string::npos) << text;
  EXPECT_EQ(text.find("rank 1 "), std::string::npos) << text;
}

}  // namespace
}  // namespace cairn
