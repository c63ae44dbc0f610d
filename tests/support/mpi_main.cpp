#include <cstdio>
#include <memory>
#include <string_view>
#include <vector>

#include "support/mpi_test.hpp"

namespace cairn::test {
namespace {

std::unique_ptr<Comm> comm;
std::vector<std::filesystem::path> directories;

}  // namespace

const Comm& world() { return *comm; }

std::filesystem::path scratch() {
  std::string path;
  if (comm->is_root()) {
    const char* base = std::getenv("TMPDIR");
    path = std::string(base != nullptr ? base : "/tmp") + "/cairn-test-XXXXXX";
    if (mkdtemp(path.data()) == nullptr) std::abort();
    directories.emplace_back(path);
  }
  comm->broadcast(path);
  return path;
}

}  // namespace cairn::test

int main(int argc, char** argv) {
  const char* threads = std::getenv("CAIRN_TEST_THREADS");
  const bool multiple = threads != nullptr && std::string_view(threads) == "multiple";
  const int wanted = multiple ? MPI_THREAD_MULTIPLE : MPI_THREAD_FUNNELED;
  int provided = 0;
  MPI_Init_thread(&argc, &argv, wanted, &provided);
  if (provided < wanted) {
    std::fprintf(stderr, "MPI gives thread level %d instead of %d\n", provided, wanted);
    return 2;
  }
  testing::InitGoogleTest(&argc, argv);
  // A throw on one rank must end the job at once instead of leaving the others to wait.
  testing::GTEST_FLAG(catch_exceptions) = false;
  int result = 0;
  {
    using namespace cairn::test;
    comm = std::make_unique<cairn::Comm>(MPI_COMM_WORLD, std::chrono::seconds(60));
    std::uint64_t failed[1] = {RUN_ALL_TESTS() == 0 ? 0U : 1U};
    comm->all_reduce_max(std::span<std::uint64_t>(failed));
    result = static_cast<int>(failed[0]);
    for (const auto& directory : directories) std::filesystem::remove_all(directory);
    comm->close();
  }
  MPI_Finalize();
  return result;
}
