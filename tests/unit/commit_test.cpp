#include "formats/hdf5/commit.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "cairn/error.hpp"
#include "formats/hdf5/container.hpp"
#include "formats/hdf5/index.hpp"

namespace cairn::detail {
namespace {

std::string text_of_record() {
  CommitRecord record;
  record.info.format_version = 1;
  record.info.library_version = "0";
  record.info.step = 7;
  record.info.writers = 2;
  record.documents["context"] = {{4096, 512}, 1};
  const auto bytes = encode_commit(record);
  return reinterpret_cast<const char*>(bytes.data());
}

Errc code_of(const std::string& text) {
  try {
    decode_commit(std::as_bytes(std::span(text)));
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "was accepted: " << text;
  return Errc::internal;
}

TEST(Commit, NumbersAreNeitherRoundedNorWrapped) {
  const std::string good = text_of_record();
  EXPECT_EQ(decode_commit(std::as_bytes(std::span(good))).info.step, 7U);
  for (const std::string key : {"format_version", "step", "writers", "bytes"}) {
    for (const char* value : {"-1", "1.5", "1e300", "18446744073709551616", "true", "\"1\""}) {
      std::string bad = good;
      const auto at = bad.find('"' + key + "\":") + key.size() + 3;
      bad.replace(at, bad.find_first_of(",}", at) - at, value);
      EXPECT_EQ(code_of(bad), Errc::corrupt) << key << " " << value;
    }
  }
}

TEST(Container, EveryPartWasWrittenByOneOfTheWriters) {
  for (const int writer : {-1, 2}) {
    TensorEntry scalar;
    scalar.name = "model/scalar";
    scalar.extents.emplace_back().writer = writer;
    ContainerTable table;
    table.head.files.push_back({"some.h5", 4096, Access::extents, 0});
    table.head.commit.writers = 2;
    table.index = encode_index({scalar});
    try {
      check_table(table);
      ADD_FAILURE() << "was accepted: " << writer;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::corrupt) << error.what();
    }
  }
}

}  // namespace
}  // namespace cairn::detail
