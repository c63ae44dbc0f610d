#include <ATen/quantized/Quantizer.h>

#include "torch/toy.hpp"

namespace cairn::test {
namespace {

/// Every byte of the tensor's memory depends on `seed`; a bool stays 0 or 1.
void scribble(const at::Tensor& tensor, unsigned seed) {
  auto* bytes = static_cast<unsigned char*>(tensor.data_ptr());
  const bool is_bool = tensor.scalar_type() == at::kBool;
  for (std::size_t i = 0; i < tensor.nbytes(); ++i) {
    const unsigned value = (static_cast<unsigned>(i) * 37 + seed * 101) >> 1;
    bytes[i] = static_cast<unsigned char>(is_bool ? value & 1 : value);
  }
}

std::string memory_of(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.storage().data()), tensor.storage().nbytes()};
}

PlacementPolicy split_along(std::size_t dim) {
  return [dim](const std::string&, const at::Tensor&) {
    return Placement::split({7, 6}, dim, world().size(), world().rank());
  };
}

/// The local part of the global 7 x 6 tensor of counting values.
at::Tensor part_along(std::int64_t dim) {
  const Range range = balanced_range(dim == 0 ? 7 : 6, world().size(), world().rank());
  return counting({7, 6})
      .narrow(dim, static_cast<std::int64_t>(range.start), static_cast<std::int64_t>(range.count))
      .contiguous();
}

TEST(Module, EveryDtypeRoundTrips) {
  const auto make = [](unsigned seed) {
    Bag bag;
    for (const auto type :
         {at::kByte, at::kChar, at::kShort, at::kInt, at::kLong, at::kHalf, at::kFloat, at::kDouble,
          at::kComplexHalf, at::kComplexFloat, at::kComplexDouble, at::kBool, at::kBFloat16}) {
      const std::string name = c10::toString(type);
      for (const std::vector<std::int64_t>& sizes :
           {std::vector<std::int64_t>{5, 3}, std::vector<std::int64_t>{},
            std::vector<std::int64_t>{0, 4}}) {
        const at::Tensor tensor = at::empty(sizes, type);
        scribble(tensor, seed);
        bag.register_buffer(name + std::to_string(sizes.size()) + std::to_string(tensor.numel()),
                            tensor);
      }
    }
    return bag;
  };
  auto manager = manager_in(scratch());
  const Bag saved = make(1);
  manager.save_checkpoint(saved);
  Bag loaded = make(2);
  ASSERT_NE(bytes_of(loaded), bytes_of(saved));
  const auto context = manager.load_checkpoint(loaded);
  EXPECT_EQ(bytes_of(loaded), bytes_of(saved));
  EXPECT_EQ(context.report.loaded.size(), 39U);
  manager.close();
}

std::vector<at::Tensor> quantised(double scale) {
  const at::Tensor values = counting({6, 4}, -9) * scale;
  const at::Tensor scales = at::linspace(scale, 4 * scale, 6, at::kDouble);
  const at::Tensor points = at::arange(6, at::kLong);
  return {at::quantize_per_tensor(values, scale, 3, at::kQInt8),
          at::quantize_per_tensor(values, scale, 100, at::kQUInt8),
          at::quantize_per_tensor(values, scale, -7, at::kQInt32),
          at::quantize_per_channel(values, scales, points, 0, at::kQInt8),
          at::quantize_per_channel(values, scales.to(at::kFloat), points.to(at::kFloat) + 0.25, 0,
                                   at::kQUInt8),
          at::quantize_per_channel(values, scales.to(at::kFloat), points.to(at::kFloat) + 0.5, 0,
                                   at::kQUInt4x2)};
}

TEST(Module, QuantisedTensorsKeepValuesAndQuantizers) {
  const auto make = [](const std::vector<at::Tensor>& tensors) {
    Bag bag;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      bag.register_buffer("q" + std::to_string(i), tensors[i]);
    }
    // In memory of its own, so that a load fills it from the checkpoint alone.
    bag.register_buffer("transposed", tensors[0].clone().t());
    return bag;
  };
  auto manager = manager_in(scratch());
  const auto saved = quantised(0.1);
  manager.save_checkpoint(make(saved));
  const auto loaded = quantised(0.7);
  Bag target = make(loaded);
  manager.load_checkpoint(target);
  for (std::size_t i = 0; i < saved.size(); ++i) {
    EXPECT_EQ(memory_of(loaded[i]), memory_of(saved[i])) << i;
    EXPECT_TRUE(loaded[i].quantizer()->equalTo(saved[i].quantizer())) << i;
  }
  EXPECT_TRUE(target.named_buffers()["transposed"].equal(saved[0].t()));
  manager.close();
}

TEST(Module, QuantisedAndPlainDoNotMix) {
  auto manager = manager_in(scratch());
  manager.save_checkpoint(bag_with(quantised(0.1)[0]));
  Bag plain = bag_with(at::zeros({6, 4}, at::kChar));
  expect_same_error(Errc::mismatch, [&] { manager.load_checkpoint(plain); });
  Bag other = bag_with(quantised(0.1)[1]);
  expect_same_error(Errc::mismatch, [&] { manager.load_checkpoint(other); });
  manager.save_checkpoint(plain, {.global_step = 1});
  Bag wanting = bag_with(quantised(0.2)[0]);
  expect_same_error(Errc::mismatch, [&] { manager.load_checkpoint(wanting); });
  manager.close();
}

TEST(Module, StridedMemoryIsStaged) {
  const auto make = [](double first) {
    Bag bag;
    bag.register_parameter("transposed", counting({3, 5}, first).t());
    bag.register_buffer("expanded", counting({1, 4}, first).expand({3, 4}));
    bag.register_buffer("conjugate",
                        at::conj(at::complex(counting({4}, first), counting({4}, first + 7))));
    bag.register_buffer("every_second", counting({8}, first).slice(0, 0, 8, 2));
    bag.register_buffer("undefined", at::Tensor());
    return bag;
  };
  auto manager = manager_in(scratch());
  const Bag saved = make(1);
  manager.save_checkpoint(saved);
  Bag loaded = make(100);
  const at::Tensor parameter = loaded.named_parameters()["transposed"];
  const void* memory = parameter.data_ptr();
  const auto version = parameter._version();
  manager.load_checkpoint(loaded);
  EXPECT_EQ(bytes_of(loaded), bytes_of(saved));
  EXPECT_EQ(loaded.named_parameters()["transposed"].data_ptr(), memory);
  EXPECT_FALSE(parameter.is_contiguous());
  EXPECT_TRUE(parameter.requires_grad() && parameter.is_leaf());
  EXPECT_GT(parameter._version(), version);
  manager.close();
}

TEST(Module, LoadingInPlaceIsSeenByAutograd) {
  auto manager = manager_in(scratch());
  Bag bag = bag_with(counting({4}));
  manager.save_checkpoint(bag);
  const at::Tensor parameter = bag.named_parameters()["weight"];
  const void* memory = parameter.data_ptr();
  const at::Tensor loss = (parameter * parameter).sum();
  manager.load_checkpoint(bag);
  EXPECT_EQ(parameter.data_ptr(), memory);
  EXPECT_TRUE(parameter.requires_grad() && parameter.is_leaf());
  EXPECT_THROW(loss.backward(), c10::Error);
  manager.close();
}

TEST(Module, TiedTensorsAreSavedOnce) {
  const auto make = [](double first, bool tied) {
    Bag bag;
    auto encoder = std::make_shared<Bag>();
    auto decoder = std::make_shared<Bag>();
    const at::Tensor weight = encoder->register_parameter("weight", counting({3, 2}, first));
    decoder->register_parameter("weight", tied ? weight : counting({3, 2}, first + 50));
    bag.register_module("encoder", encoder);
    bag.register_module("decoder", decoder);
    return bag;
  };
  auto manager = manager_in(scratch());
  manager.save_checkpoint(make(1, true));

  Bag tied = make(9, true);
  const auto context = manager.load_checkpoint(tied);
  EXPECT_EQ(context.report.loaded, std::vector<std::string>{"model/encoder.weight"});
  EXPECT_EQ(bytes_of(tied), bytes_of(make(1, true)));

  Bag apart = make(9, false);
  manager.load_checkpoint(apart);
  EXPECT_EQ(bytes_of(apart), bytes_of(make(1, true)));

  manager.save_checkpoint(make(1, false), {.global_step = 1});
  const auto both = manager.load_checkpoint(tied);
  EXPECT_EQ(both.warnings.size(), 1U);
  EXPECT_EQ(bytes_of(tied), bytes_of(make(1, true)));
  manager.close();
}

TEST(Module, AnyPlacementLoadsUnderAnyOther) {
  const auto dir = scratch();
  auto rows = manager_in(dir, {.placement = split_along(0)});
  auto columns = manager_in(dir, {.placement = split_along(1)});
  auto whole = manager_in(dir);
  const PlacementPolicy ranges = [](const std::string&, const at::Tensor&) {
    return Placement::flat_split({7, 6}, world().size(), world().rank());
  };
  auto flat = manager_in(dir, {.placement = ranges});
  const Range mine = balanced_range(42, world().size(), world().rank());
  const at::Tensor my_range = counting({42}).narrow(0, static_cast<std::int64_t>(mine.start),
                                                    static_cast<std::int64_t>(mine.count));
  const std::vector<std::pair<CheckpointManager*, at::Tensor>> all{{&rows, part_along(0)},
                                                                   {&columns, part_along(1)},
                                                                   {&whole, counting({7, 6})},
                                                                   {&flat, my_range.clone()}};
  std::uint64_t step = 0;
  for (const auto& [saver, values] : all) {
    saver->save_checkpoint(bag_with(values.clone()), {.global_step = ++step});
    for (const auto& [loader, expected] : all) {
      Bag bag = bag_with(at::zeros_like(expected));
      const auto context = loader->load_checkpoint(bag);
      EXPECT_EQ(context.global_step, step);
      EXPECT_TRUE(bag.named_parameters()["weight"].equal(expected)) << step;
    }
  }
  for (const auto& [manager, values] : all) manager->close();
}

TEST(Module, RanksMayHoldDifferentTensors) {
  const auto make = [](double first) {
    Bag bag;
    const std::string stage = "stage" + std::to_string(world().rank());
    const at::Tensor weight = bag.register_parameter(stage, counting({3}, first + world().rank()));
    bag.register_parameter(stage + "_tied", weight);
    return bag;
  };
  auto manager = manager_in(scratch());
  manager.save_checkpoint(make(1));
  Bag loaded = make(70);
  const auto context = manager.load_checkpoint(loaded);
  EXPECT_EQ(bytes_of(loaded), bytes_of(make(1)));
  EXPECT_EQ(context.report.loaded.size(), static_cast<std::size_t>(world().size()));
  for (int rank = 0; rank < world().size(); ++rank) {
    EXPECT_NE(context.documents.at("model").find("stage" + std::to_string(rank) + "_tied"),
              std::string::npos);
  }
  manager.close();
}

TEST(Module, PlacementMustFitTheTensor) {
  const PlacementPolicy wrong_on_last = [](const std::string&, const at::Tensor& tensor) {
    const bool last = world().rank() == world().size() - 1;
    return Placement::replicated({static_cast<std::uint64_t>(tensor.numel()) + (last ? 1U : 0U)});
  };
  auto manager = manager_in(scratch(), {.placement = wrong_on_last});
  const auto text =
      expect_same_error(Errc::mismatch, [&] { manager.save_checkpoint(bag_with(counting({4}))); });
  EXPECT_NE(text.find("rank " + std::to_string(world().size() - 1)), std::string::npos) << text;
  EXPECT_NE(text.find("model/weight"), std::string::npos) << text;
  manager.close();
}

TEST(Module, MisfitsChangeNothing) {
  auto manager = manager_in(scratch());
  Bag saved;
  saved.register_parameter("a", counting({4}));
  saved.register_parameter("b", counting({2, 3}));
  manager.save_checkpoint(saved);

  const auto refuse = [&](const std::string& about, const std::function<void(Bag&)>& fill) {
    Bag bag;
    fill(bag);
    const auto before = bytes_of(bag);
    const auto text = expect_same_error(Errc::mismatch, [&] { manager.load_checkpoint(bag); });
    EXPECT_EQ(bytes_of(bag), before);
    EXPECT_NE(text.find(about), std::string::npos) << text;
    EXPECT_NE(text.find("step-"), std::string::npos) << text;
  };
  refuse("model/c", [](Bag& bag) {
    bag.register_parameter("a", counting({4}, 9));
    bag.register_parameter("b", counting({2, 3}, 9));
    bag.register_parameter("c", counting({2}, 9));
  });
  refuse("model/b", [](Bag& bag) { bag.register_parameter("a", counting({4}, 9)); });
  refuse("model/b", [](Bag& bag) {
    bag.register_parameter("a", counting({4}, 9));
    bag.register_parameter("b", counting({3, 2}, 9));
  });
  refuse("model/a", [](Bag& bag) {
    bag.register_parameter("a", counting({4}, 9).to(at::kDouble));
    bag.register_parameter("b", counting({3, 2}, 9).t());
  });
  manager.close();
}

TEST(Module, SparseTensorsAreRefused) {
  auto manager = manager_in(scratch());
  Bag bag;
  bag.register_buffer("sparse", at::eye(3).to_sparse());
  expect_same_error(Errc::unsupported, [&] { manager.save_checkpoint(bag); });
  manager.close();
}

}  // namespace
}  // namespace cairn::test
