#include "manifest/names.hpp"

#include <gtest/gtest.h>

#include "cairn/error.hpp"
#include "cairn/tensor_view.hpp"

namespace cairn::detail {
namespace {

TEST(Names, EveryComponentEscapesToOneLegalComponentAndBack) {
  for (const std::string name :
       {"weight", "a/b", "", ".", "..", "100%", "%2F", "%", "é", "tab\there"}) {
    const std::string escaped = escape_component(name);
    EXPECT_EQ(unescape_component(escaped), name);
    EXPECT_NO_THROW(names::check_tensor_name("model/" + escaped));
    EXPECT_EQ(escaped.find('/'), std::string::npos);
  }
}

TEST(Names, StepsSortAndParse) {
  EXPECT_EQ(names::checkpoint_file(1000), "step-00001000.h5");
  EXPECT_EQ(names::parse_checkpoint_file("step-00001000.h5"), 1000U);
  EXPECT_EQ(names::parse_checkpoint_file(names::checkpoint_file(123456789012)), 123456789012U);
  for (const char* other : {".step-00001000.h5.partial", "step-.h5", "step-00001000.h5.bak",
                            "step-0000100x.h5", "last", "step-1.h5"}) {
    EXPECT_FALSE(names::parse_checkpoint_file(other)) << other;
  }
}

TEST(Names, NaturalOrderIsByNumbersAndTotal) {
  const std::vector<std::string> sorted{"h", "h.1", "h.02", "h.2", "h.2.a", "h.2b", "h.10", "i"};
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    for (std::size_t j = 0; j < sorted.size(); ++j) {
      EXPECT_EQ(names::natural_less(sorted[i], sorted[j]), i < j) << sorted[i] << " " << sorted[j];
    }
  }
}

TEST(Names, BadTensorNamesAreRefused) {
  for (const char* name : {"", "model", "/model/a", "model//a", "model/", "model/./a", "index/a",
                           "meta/a", "commit/a", "model/a\nb", "model/a\x7f"}) {
    EXPECT_THROW(names::check_tensor_name(name), Error) << name;
  }
}

}  // namespace
}  // namespace cairn::detail
