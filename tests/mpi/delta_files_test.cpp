// SaveOptions::delta: what becomes of files that others refer to.
#include "support/delta_state.hpp"

namespace cairn {
namespace {

using namespace test;
namespace fs = std::filesystem;

TEST(Delta, AMissingOrReplacedFileIsAnErrorThatNamesBoth) {
  const auto dir = scratch();
  const fs::path base = checkpoint_path(dir, 1);
  Saver saver(world(), delta());
  save(saver, base, pieces_of(Cut::rows, 1));
  save(saver, checkpoint_path(dir, 2), pieces_of(Cut::rows, 2), 2);
  const auto open = [&] { open_checkpoint(world(), checkpoint_path(dir, 2)); };
  on_root([&] { fs::rename(base, dir / "aside"); });
  std::string text = expect_same_error(Errc::corrupt, open);
  EXPECT_NE(text.find(name_of(1) + "', which is missing"), std::string::npos) << text;
  EXPECT_NE(text.find(name_of(2)), std::string::npos) << text;
  Saver other(world(), SaveOptions{});
  save(other, base, pieces_of(Cut::rows, 7), 1);
  text = expect_same_error(Errc::corrupt, open);
  EXPECT_NE(text.find(name_of(1) + "', which is another file now"), std::string::npos) << text;
  on_root([&] { fs::rename(dir / "aside", base); });
  EXPECT_TRUE(holds(checkpoint_path(dir, 2), pieces_of(Cut::rows, 2)));
}

TEST(Delta, WhatIsReferredToStaysUntilNobodyNeedsIt) {
  const auto dir = scratch();
  SaveOptions options = delta();
  options.retention.keep_last = 1;
  Saver saver(world(), options);
  save(saver, checkpoint_path(dir, 1), pieces_of(Cut::rows, 1), 1);
  save(saver, checkpoint_path(dir, 2), pieces_of(Cut::rows, 2, 2), 2);
  save(saver, checkpoint_path(dir, 3), pieces_of(Cut::rows, 3, 2), 3);
  EXPECT_EQ(files_in(dir), (std::set<std::string>{"last", name_of(1), name_of(2), name_of(3)}));
  save(saver, checkpoint_path(dir, 4), pieces_of(Cut::rows, 4, 4), 4);
  EXPECT_EQ(files_in(dir), (std::set<std::string>{"last", name_of(1), name_of(4)}));
  EXPECT_TRUE(holds(checkpoint_path(dir, 4), pieces_of(Cut::rows, 4, 4)));
  options.delta = false;
  Saver whole(world(), options);
  save(whole, checkpoint_path(dir, 5), pieces_of(Cut::rows, 5), 5);
  EXPECT_EQ(files_in(dir), (std::set<std::string>{"last", name_of(5)}));
}

TEST(Delta, WhatIsNeededByOneThatIsNeededStays) {
  const auto dir = scratch();
  Saver all(world(), delta());
  save(all, checkpoint_path(dir, 1), pieces_of(Cut::rows, 1), 1);
  save(all, checkpoint_path(dir, 2), pieces_of(Cut::rows, 2, 2), 2);
  // The third one needs only model/deep of the second, which needs the first.
  SaveOptions options = delta();
  options.retention.keep_last = 1;
  Saver saver(world(), options);
  auto pieces = sample_pieces(Cut::rows, world().size(), world().rank(), 9);
  const auto second = pieces_of(Cut::rows, 2);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const bool counts = pieces[i].name.starts_with("model/counting.");
    if (counts) pieces[i].bytes.assign(pieces[i].bytes.size(), std::byte{1});
    if (pieces[i].name == "model/deep") pieces[i] = second[i];
  }
  save(saver, checkpoint_path(dir, 3), pieces, 3);
  EXPECT_EQ(files_in(dir), (std::set<std::string>{"last", name_of(1), name_of(2), name_of(3)}));
  EXPECT_EQ(open_checkpoint(world(), checkpoint_path(dir, 3)).files.size(), 2U);
  EXPECT_TRUE(holds(checkpoint_path(dir, 2), pieces_of(Cut::rows, 2, 2)));
}

TEST(Delta, AFileIsNeverReplacedByOneThatNeedsIt) {
  const auto dir = scratch();
  Saver saver(world(), delta());
  for (std::uint64_t step = 1; step <= 3; ++step) {
    save(saver, dir / "model.h5", pieces_of(Cut::rows, step), step);
    EXPECT_EQ(open_checkpoint(world(), dir / "model.h5").files.size(), 1U);
    EXPECT_TRUE(holds(dir / "model.h5", pieces_of(Cut::columns, step)));
  }
}

TEST(Delta, AFileWithAnOddNameIsNotReferredTo) {
  const auto dir = scratch();
  Saver saver(world(), delta());
  save(saver, dir / "a\tb.h5", pieces_of(Cut::rows, 1), 1);
  save(saver, dir / "c.h5", pieces_of(Cut::rows, 1), 1);
  EXPECT_EQ(open_checkpoint(world(), dir / "c.h5").files.size(), 1U);
}

TEST(Delta, ReferredFilesAreAtMostSixteen) {
  const auto dir = scratch();
  Saver saver(world(), delta());
  std::vector<Piece> pieces;
  for (std::uint64_t i = 0; i < 20; ++i) {
    const Shape shape{100 * (i + 1)};
    pieces.push_back({"model/t." + std::to_string(i), DType::u8, Placement::replicated(shape),
                      std::vector<std::byte>(shape[0])});
  }
  for (std::uint64_t step = 1; step <= 20; ++step) {
    pieces[step - 1].bytes[0] = std::byte{1};
    save(saver, checkpoint_path(dir, step), pieces, step);
  }
  const Manifest last = open_checkpoint(world(), checkpoint_path(dir, 20));
  EXPECT_EQ(last.files.size(), 17U);
  // The smallest ones were written again when there were too many files.
  EXPECT_EQ(home_of(last, "model/t.0"), name_of(20));
  EXPECT_EQ(home_of(last, "model/t.2"), name_of(19));
  EXPECT_EQ(home_of(last, "model/t.3"), name_of(4));
  EXPECT_TRUE(holds(checkpoint_path(dir, 20), pieces));
}

TEST(Delta, AnErrorWhileChangesAreSoughtIsTheSameOnAllRanks) {
  const auto dir = scratch();
  Saver saver(world(), delta());
  save(saver, checkpoint_path(dir, 1), pieces_of(Cut::rows, 1), 1);
  {
    const ScopedFault fault("delta:" + std::to_string(world().size() - 1) + ":error");
    expect_same_error(Errc::io,
                      [&] { save(saver, checkpoint_path(dir, 2), pieces_of(Cut::rows, 2), 2); });
  }
  save(saver, checkpoint_path(dir, 2), pieces_of(Cut::rows, 2), 2);
  EXPECT_EQ(open_checkpoint(world(), checkpoint_path(dir, 2)).files.size(), 2U);
}

TEST(Delta, AFileThatOthersNeedIsNotReplaced) {
  const auto dir = scratch();
  Saver saver(world(), delta());
  save(saver, checkpoint_path(dir, 1), pieces_of(Cut::rows, 1), 1);
  save(saver, checkpoint_path(dir, 2), pieces_of(Cut::rows, 2), 2);
  for (const bool with_delta : {true, false}) {
    SaveOptions options = delta();
    options.delta = with_delta;
    Saver other(world(), options);
    const std::string text = expect_same_error(
        Errc::usage, [&] { save(other, checkpoint_path(dir, 1), pieces_of(Cut::rows, 3), 1); });
    EXPECT_NE(text.find(name_of(2)), std::string::npos) << text;
  }
  EXPECT_TRUE(holds(checkpoint_path(dir, 1), pieces_of(Cut::rows, 1)));
  EXPECT_TRUE(holds(checkpoint_path(dir, 2), pieces_of(Cut::rows, 2)));
  save(saver, checkpoint_path(dir, 2), pieces_of(Cut::rows, 4), 2);  // that one nobody needs
  EXPECT_TRUE(holds(checkpoint_path(dir, 2), pieces_of(Cut::rows, 4)));
}

TEST(Delta, AReferredFileThatVanishesDuringASaveFailsIt) {
  const auto dir = scratch();
  bool remove = false;
  SaveOptions options = delta();
  options.progress = [&](const SaveProgress& now) {
    if (remove && now.step == SaveStep::preflight && world().is_root()) {
      fs::remove(checkpoint_path(dir, 1));
    }
  };
  Saver saver(world(), options);
  save(saver, checkpoint_path(dir, 1), pieces_of(Cut::rows, 1), 1);
  remove = true;
  const std::string text = expect_same_error(
      Errc::io, [&] { save(saver, checkpoint_path(dir, 2), pieces_of(Cut::rows, 2), 2); });
  EXPECT_NE(text.find(name_of(1)), std::string::npos) << text;
  EXPECT_EQ(files_in(dir), (std::set<std::string>{"last"}));
  remove = false;
  save(saver, checkpoint_path(dir, 2), pieces_of(Cut::rows, 2), 2);
  EXPECT_TRUE(holds(checkpoint_path(dir, 2), pieces_of(Cut::rows, 2)));
}

}  // namespace
}  // namespace cairn
