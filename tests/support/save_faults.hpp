#pragma once

#include <string>
#include <vector>

#include "support/mpi_test.hpp"

namespace cairn::test {

/// A rule of CAIRN_FAULT that makes a save fail, and the rank on which.
struct SaveFault {
  std::string rule;
  std::string rank;
};

/// One for every step of a save whose layout is made already: on the last rank, and on rank 0 where
/// it alone acts. `more`: further points, which every rank passes.
inline std::vector<SaveFault> save_faults(const std::vector<std::string>& more) {
  std::vector<SaveFault> faults;
  const std::string last = std::to_string(world().size() - 1);
  for (const char* point :
       {"agree", "preflight", "move", "move.end", "durable", "durable.close", "commit"}) {
    faults.push_back({std::string(point) + ":" + last + ":error", last});
  }
  for (const std::string& point : more) faults.push_back({point + ":" + last + ":error", last});
  for (const char* point : {"commit.signature", "commit.sync", "publish", "publish.rename"}) {
    faults.push_back({std::string(point) + ":0:error", "0"});
  }
  return faults;
}

/// Has each write of the commit meet a full disk, until `save()` meets none of them; how many there
/// were. `failed()` checks what a failed save left. Collective.
template <class Save, class Failed>
int fill_disk_at_each_commit_write(Save&& save, Failed&& failed) {
  constexpr int kMost = 64;  // more than a commit has
  for (int pass = 1; pass <= kMost; ++pass) {
    const ScopedFault fault("commit.write:0:full:" + std::to_string(pass));
    std::string text;
    try {
      save();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::io);
      text = error.what();
    }
    std::string of_root = text;
    world().broadcast(of_root);
    EXPECT_EQ(text, of_root);
    if (of_root.empty()) return pass - 1;
    EXPECT_NE(text.find("save: commit: rank 0"), std::string::npos) << text;
    EXPECT_NE(text.find("No space left"), std::string::npos) << text;
    failed();
  }
  ADD_FAILURE() << "saves still fail when " << kMost << " writes were made";
  return kMost;
}

}  // namespace cairn::test
