// Loads that convert, and loads of a part.
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "cairn/checkpoint.hpp"
#include "mpi/time_limit.hpp"
#include "support/mpi_test.hpp"

namespace cairn {
namespace {

using namespace test;

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class LoadOfSome : public testing::TestWithParam<EngineKind> {
 protected:
  void SetUp() override {
    path_ = scratch() / "step-00000001.h5";
    add("a/f32", DType::f32, bytes_of<float>({1.F, -0.F, 1.00390625F, 1.01171875F, kInf, kNan}));
    add("a/i64", DType::i64, bytes_of<std::int64_t>({-128, 0, 127}));
    add("a/big", DType::i64, bytes_of<std::int64_t>({0, 128}));
    add("b/bf16", DType::bf16, bytes_of<std::uint16_t>({0x3f80, 0xc000, 0x7f80, 0x7fc0}));
    add("b/f16", DType::f16, bytes_of<std::uint16_t>({0x3c00, 0x0001, 0x7bff, 0xfc00}));
    add("b/f8", DType::f8_e4m3fn, bytes_of<std::uint8_t>({0x38, 0x7e, 0x7f}));
    StateView state;
    for (Stored& t : stored_) {
      state.tensors.push_back(
          {t.name, t.dtype, Placement::replicated({t.elements}), t.bytes.data()});
    }
    Saver(world(), {}).save(path_, state);
    manifest_ = open_checkpoint(world(), path_);
    options_.engine = GetParam();
  }

  void add(const std::string& name, DType dtype, std::vector<std::byte> bytes) {
    const std::uint64_t elements = bytes.size() / item_bytes(dtype);
    stored_.push_back({name, dtype, elements, std::move(bytes)});
  }

  template <class T>
  LoadResult load(const std::string& name, DType dtype, std::vector<T>& memory) {
    const MutableTensorView target{name, dtype, Placement::replicated({memory.size()}),
                                   reinterpret_cast<std::byte*>(memory.data())};
    return load_tensors(world(), manifest_, {&target, 1}, options_);
  }

  struct Stored {
    std::string name;
    DType dtype;
    std::uint64_t elements;
    std::vector<std::byte> bytes;
  };
  std::vector<Stored> stored_;
  std::filesystem::path path_;
  Manifest manifest_;
  LoadOptions options_;
};

TEST_P(LoadOfSome, EndsBetweenReadsOnceItsTimeIsOver) {
  std::vector<std::uint16_t> memory(4, 0xeeee);
  const auto until = detail::TimeLimit::Clock::now();
  const detail::TimeLimit limit(until, "the time");
  auto text = expect_same_error(Errc::timeout, [&] { load("b/bf16", DType::bf16, memory); });
  EXPECT_EQ(text.find("verify: rank "), 0U) << text;  // of the rank whose share it is
  EXPECT_NE(text.find("the time is over"), std::string::npos) << text;
  EXPECT_EQ(memory, std::vector<std::uint16_t>(4, 0xeeee));
  options_.verify = VerifyWhen::never;
  text = expect_same_error(Errc::timeout, [&] { load("b/bf16", DType::bf16, memory); });
  EXPECT_NE(text.find("load: move: rank 0: the time is over"), std::string::npos) << text;
  EXPECT_NE(text.find("partly filled"), std::string::npos) << text;
  const detail::TimeLimit longer(until + std::chrono::hours(1), "the time");
  load("b/bf16", DType::bf16, memory);
  EXPECT_EQ(memory[0], 0x3f80);
}

TEST_P(LoadOfSome, ConvertsOnlyWhenAskedAndReportsIt) {
  std::vector<std::uint16_t> memory(6, 0xeeee);
  const std::string text =
      expect_same_error(Errc::mismatch, [&] { load("a/f32", DType::bf16, memory); });
  EXPECT_NE(text.find("LoadOptions::cast"), std::string::npos) << text;
  EXPECT_EQ(memory, std::vector<std::uint16_t>(6, 0xeeee));
  options_.cast = true;
  const LoadResult result = load("a/f32", DType::bf16, memory);
  // 1.00390625 and 1.01171875 lie in the middle: the even neighbours are below and above.
  EXPECT_EQ(std::vector<std::uint16_t>(memory.begin(), memory.begin() + 5),
            (std::vector<std::uint16_t>{0x3f80, 0x8000, 0x3f80, 0x3f82, 0x7f80}));
  EXPECT_TRUE((memory[5] & 0x7f80) == 0x7f80 && (memory[5] & 0x7f) != 0);
  EXPECT_EQ(result.casts, (std::vector<TensorCast>{{"a/f32", DType::f32, DType::bf16}}));
  EXPECT_EQ(result.tensors, 1U);
  EXPECT_EQ(result.bytes_read, 24U);
  std::vector<float> plain(6);
  EXPECT_TRUE(load("a/f32", DType::f32, plain).casts.empty());
  EXPECT_EQ(plain[2], 1.00390625F);
}

TEST_P(LoadOfSome, WidensSmallFloats) {
  options_.cast = true;
  std::vector<float> from_bf16(4);
  load("b/bf16", DType::f32, from_bf16);
  EXPECT_EQ(from_bf16[0], 1.F);
  EXPECT_EQ(from_bf16[1], -2.F);
  EXPECT_EQ(from_bf16[2], kInf);
  EXPECT_TRUE(std::isnan(from_bf16[3]));
  std::vector<double> from_f16(4);
  load("b/f16", DType::f64, from_f16);
  EXPECT_EQ(from_f16, (std::vector<double>{1., std::ldexp(1., -24), 65504., -kInf}));
  std::vector<float> from_f8(3);
  load("b/f8", DType::f32, from_f8);
  EXPECT_EQ(from_f8[0], 1.F);
  EXPECT_EQ(from_f8[1], 448.F);
  EXPECT_TRUE(std::isnan(from_f8[2]));
}

TEST_P(LoadOfSome, IntegersMustFit) {
  options_.cast = true;
  std::vector<std::int8_t> memory(3);
  load("a/i64", DType::i8, memory);
  EXPECT_EQ(memory, (std::vector<std::int8_t>{-128, 0, 127}));
  std::vector<std::int8_t> big(2, 42);
  const std::string text =
      expect_same_error(Errc::mismatch, [&] { load("a/big", DType::i8, big); });
  EXPECT_NE(text.find("128"), std::string::npos) << text;
  EXPECT_EQ(big, (std::vector<std::int8_t>{42, 42}));
  std::vector<float> floats(3);
  expect_same_error(Errc::mismatch, [&] { load("a/i64", DType::f32, floats); });
}

TEST_P(LoadOfSome, EveryCastOfEveryRankIsReported) {
  options_.cast = true;
  std::vector<std::byte> memory(6 * 8);
  const DType mine = world().is_root() ? DType::f64 : DType::f16;
  const MutableTensorView target{"a/f32", mine, Placement::replicated({6}), memory.data()};
  std::vector<TensorCast> expected{{"a/f32", DType::f32, DType::f64}};
  if (world().size() > 1) expected.push_back({"a/f32", DType::f32, DType::f16});
  EXPECT_EQ(load_tensors(world(), manifest_, {&target, 1}, options_).casts, expected);
}

TEST_P(LoadOfSome, FillsAndReadsOnlyWhatIsAskedFor) {
  if (world().is_root()) {  // damage what is not asked for
    const TensorEntry* other = manifest_.find("a/i64");
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(other->extents.front().offset));
    file.put('x');
  }
  std::uint64_t written[1] = {1};
  world().all_reduce_max(std::span<std::uint64_t>(written));
  std::vector<std::int64_t> kept(3, 7);
  std::vector<std::uint16_t> filled(4);
  std::vector<float> unknown(1, 7.F);
  const std::vector<MutableTensorView> targets{
      {"a/i64", DType::i64, Placement::replicated({3}), reinterpret_cast<std::byte*>(kept.data())},
      {"b/f16", DType::f16, Placement::replicated({4}),
       reinterpret_cast<std::byte*>(filled.data())},
      {"new/one", DType::f32, Placement::replicated({1}),
       reinterpret_cast<std::byte*>(unknown.data())}};
  for (const TensorFilter& only :
       {TensorFilter{.prefixes = {"b/f1"}}, TensorFilter{.names = {"b/f16"}},
        TensorFilter{.regex = "f16$"}}) {
    filled.assign(4, 0);
    options_.only = only;
    const LoadResult result = load_tensors(world(), manifest_, targets, options_);
    EXPECT_EQ(filled, (std::vector<std::uint16_t>{0x3c00, 0x0001, 0x7bff, 0xfc00}));
    EXPECT_EQ(kept, std::vector<std::int64_t>(3, 7));
    EXPECT_EQ(unknown[0], 7.F);
    EXPECT_EQ(result.tensors, 1U);
    EXPECT_EQ(result.bytes_read, 8U);
  }
}

TEST_P(LoadOfSome, AFilterThatMatchesNothingIsAnErrorWithNearNames) {
  std::vector<float> memory(6, 7.F);
  options_.only.names = {"a/f23"};
  const std::string text =
      expect_same_error(Errc::not_found, [&] { load("a/f32", DType::f32, memory); });
  EXPECT_NE(text.find("'a/f32'"), std::string::npos) << text;
  options_.only = {.regex = "("};
  expect_same_error(Errc::usage, [&] { load("a/f32", DType::f32, memory); });
  options_.only = {.prefixes = {"b/"}};  // in the checkpoint, but no target
  const std::string none =
      expect_same_error(Errc::not_found, [&] { load("a/f32", DType::f32, memory); });
  EXPECT_NE(none.find("LoadOptions::only"), std::string::npos) << none;
  if (world().size() > 1) {
    options_.only = {.prefixes = {world().is_root() ? "a/f" : "a/"}};
    expect_same_error(Errc::mismatch, [&] { load("a/f32", DType::f32, memory); });
  }
  EXPECT_EQ(memory, std::vector<float>(6, 7.F));
}

INSTANTIATE_TEST_SUITE_P(Engines, LoadOfSome,
                         testing::Values(EngineKind::direct, EngineKind::mpio));

}  // namespace
}  // namespace cairn
