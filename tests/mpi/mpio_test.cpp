// What is the engine mpio's alone: hints, the I/O component, large slices.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "cairn/checkpoint.hpp"
#include "support/mpi_test.hpp"
#include "support/sample_state.hpp"

namespace cairn {
namespace {

using namespace test;

class Mpio : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = scratch();
    options_.engine = EngineKind::mpio;
    options_.durable = false;
    pieces_ = sample_pieces(Cut::rows, world().size(), world().rank());
  }

  void save(std::uint64_t step = 1) {
    Saver(world(), options_)
        .save(checkpoint_path(dir_, step), sample_state(pieces_, world().rank(), step));
  }
  nlohmann::json provenance() {
    const Manifest manifest = open_checkpoint(world(), checkpoint_path(dir_, 1));
    return nlohmann::json::parse(manifest.documents.at("provenance"));
  }
  std::vector<MutableTensorView> targets() {
    std::vector<MutableTensorView> views;
    for (Piece& piece : pieces_) {
      views.push_back({piece.name, piece.dtype, piece.placement, piece.bytes.data()});
    }
    return views;
  }

  std::filesystem::path dir_;
  SaveOptions options_;
  std::vector<Piece> pieces_;
};

TEST_F(Mpio, HintsReachMpiAndAreRecorded) {
  options_.mpio.hints = {{"cb_nodes", "1"}, {"cb_buffer_size", "1048576"}};
  testing::internal::CaptureStderr();
  save();
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  const auto recorded = provenance();
  EXPECT_EQ(recorded["engine"], "mpio");
  EXPECT_EQ(recorded["mpi_io"]["hints"]["cb_nodes"], "1");
  EXPECT_EQ(recorded["mpi_io"]["hints"]["cb_buffer_size"], "1048576");
  EXPECT_FALSE(recorded["mpi_io"]["mpi"].get<std::string>().empty());
  EXPECT_FALSE(recorded["mpi_io"]["io"].get<std::string>().empty());
}

TEST_F(Mpio, AMisspeltHintIsToldOnce) {
  options_.mpio.hints = {{"cb_nodes", "1"}, {"cb_bufer_size", "1048576"}};
  Saver saver(world(), options_);
  testing::internal::CaptureStderr();
  for (const std::uint64_t step : {1, 2}) {
    saver.save(checkpoint_path(dir_, step), sample_state(pieces_, world().rank(), step));
  }
  const std::string told = testing::internal::GetCapturedStderr();
  if (!world().is_root()) {
    EXPECT_EQ(told, "");
    return;
  }
  EXPECT_TRUE(told.starts_with("cairn: warning: the MPI-IO hint 'cb_bufer_size'")) << told;
  EXPECT_NE(told.find("near it are 'cb_buffer_size'"), std::string::npos) << told;
  EXPECT_EQ(std::count(told.begin(), told.end(), '\n'), 1) << told;
}

TEST_F(Mpio, HintsThatMpiCannotTakeAreRefused) {
  for (const auto& [key, value] : {std::pair(std::string(300, 'k'), std::string("1")),
                                   std::pair(std::string("cb_nodes"), std::string(3000, '1')),
                                   std::pair(std::string(), std::string("1"))}) {
    options_.mpio.hints = {{key, value}};
    expect_same_error(Errc::usage, [&] { save(); });
    EXPECT_TRUE(std::filesystem::is_empty(dir_));
  }
}

TEST_F(Mpio, HintsMustBeTheSameOnAllRanks) {
  if (world().size() == 1) return;
  save();
  const Manifest manifest = open_checkpoint(world(), checkpoint_path(dir_, 1));
  LoadOptions load;
  load.engine = EngineKind::mpio;
  if (world().rank() == 0) options_.mpio.hints = load.mpio.hints = {{"cb_nodes", "1"}};
  expect_same_error(Errc::mismatch, [&] { save(2); });
  expect_same_error(Errc::mismatch, [&] { load_tensors(world(), manifest, targets(), load); });
}

TEST_F(Mpio, ALoadTakesHintsToo) {
  save();
  LoadOptions load;
  load.engine = EngineKind::mpio;
  load.mpio.hints = {{"surely_no_hint", "1"}};
  const Manifest manifest = open_checkpoint(world(), checkpoint_path(dir_, 1));
  testing::internal::CaptureStderr();
  load_tensors(world(), manifest, targets(), load);
  const std::string told = testing::internal::GetCapturedStderr();
  EXPECT_EQ(told.find("surely_no_hint") != std::string::npos, world().is_root()) << told;
}

TEST_F(Mpio, AComponentThatIsChosenTooLateIsRefusedWithTheWayOut) {
  save();  // by whatever MPI prefers
  options_.mpio.component = IoComponent::romio;
  const std::string used = provenance()["mpi_io"]["io"];
  if (used.starts_with("romio")) GTEST_SKIP() << "LOUD: MPI prefers ROMIO here";
  const std::string text = expect_same_error(Errc::usage, [&] { save(2); });
  EXPECT_NE(text.find("export OMPI_MCA_io=romio"), std::string::npos) << text;
  EXPECT_TRUE(std::filesystem::exists(checkpoint_path(dir_, 1)));
}

// HDF5 1.10 fails on independent transfers of 2 GiB and more, and MPI counts with int: they are
// cut.
class MpioSlices : public Mpio, public testing::WithParamInterface<Transfer> {};

TEST_P(MpioSlices, MoreThanTwoGibibytesOfARankMove) {
  if (world().size() != 1) GTEST_SKIP() << "one rank is enough: the bytes of each are cut alone";
  constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
  constexpr std::uint64_t kBytes = 2 * kGiB + 4096;
  const std::vector<std::uint64_t> marks{0, kGiB - 1, kGiB, 2 * kGiB - 1, 2 * kGiB, kBytes - 1};
  const auto memory = [] {
    auto* bytes = static_cast<std::byte*>(std::calloc(kBytes, 1));
    return std::unique_ptr<std::byte, decltype(&std::free)>(bytes, &std::free);
  };
  const Placement whole = Placement::replicated({kBytes});
  StateView state;
  state.step = 1;
  {
    const auto bytes = memory();
    for (std::size_t i = 0; i < marks.size(); ++i) {
      bytes.get()[marks[i]] = static_cast<std::byte>(i + 1);
    }
    state.tensors = {{"model/large", DType::u8, whole, bytes.get()}};
    options_.transfer = GetParam();
    Saver(world(), options_).save(checkpoint_path(dir_, 1), state);
  }
  const auto bytes = memory();
  const MutableTensorView target{"model/large", DType::u8, whole, bytes.get()};
  LoadOptions load;
  load.engine = EngineKind::mpio;
  load.transfer = GetParam();
  load_tensors(world(), open_checkpoint(world(), checkpoint_path(dir_, 1)), {&target, 1}, load);
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < kBytes; ++i) sum += static_cast<std::uint64_t>(bytes.get()[i]);
  EXPECT_EQ(sum, 1U + 2 + 3 + 4 + 5 + 6);
  for (std::size_t i = 0; i < marks.size(); ++i) {
    EXPECT_EQ(bytes.get()[marks[i]], static_cast<std::byte>(i + 1)) << marks[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Transfers, MpioSlices,
                         testing::Values(Transfer::independent, Transfer::collective));

}  // namespace
}  // namespace cairn
