// cairn-fetch CONFIG [DEADLINE_S]: resolves the source of a configuration as a program does, and
// says what each rank got: "file <rank> <sha256> <path>", or "error <code>: <text>". Ends with 2
// after an error.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include "base/sha256.hpp"
#include "base/throw.hpp"
#include "cairn/comm.hpp"
#include "cairn/config.hpp"
#include "cairn/source.hpp"

namespace {

using namespace cairn;

std::string content(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) detail::fail(Errc::not_found, "rank cannot open '{}'", path.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

/// A source type of this program: copies the file `from` into the cache; or fails, or sleeps, as
/// told.
std::filesystem::path copy_file(const CustomSource& source, const FetchContext& context) {
  const auto option = [&](const char* name) {
    const auto at = source.options.find(name);
    return at == source.options.end() ? std::string() : at->second;
  };
  if (!option("fail").empty()) detail::fail(Errc::not_found, "no file: {}", option("fail"));
  if (!option("sleep_s").empty()) {
    std::this_thread::sleep_for(std::chrono::seconds(std::stoi(option("sleep_s"))));
  }
  const auto target = context.cache_dir / "copied.bin";
  std::filesystem::copy_file(option("from"), target,
                             std::filesystem::copy_options::overwrite_existing);
  return target;
}

int run(const std::string& config_file, int deadline_s) {
  const Comm comm(MPI_COMM_WORLD, std::chrono::seconds(deadline_s));
  register_source_type("copying", copy_file);
  std::string line;
  int result = 0;
  try {
    const Config config = Config::from_file(config_file);
    const auto path = resolve_source(comm, config.source.value(), source_settings(config));
    const std::string hash = detail::to_hex(detail::sha256_of(content(path)));
    line = fmt::format("file {} {} {}\n", comm.rank(), hash, path.string());
  } catch (const Error& error) {
    line = fmt::format("error {}: {}\n", to_string(error.code()), error.what());
    result = 2;
  }
  std::fputs(line.c_str(), stdout);
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  MPI_Init(&argc, &argv);
  const int result = run(argv[1], argc > 2 ? std::stoi(argv[2]) : 60);
  std::fflush(stdout);
  MPI_Finalize();
  return result;
}
