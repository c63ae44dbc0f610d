#include "base/json_text.hpp"

#include <gtest/gtest.h>

#include <string>

namespace cairn::detail {
namespace {

using Json = nlohmann::ordered_json;

TEST(JsonText, IsParsedAsTheLibraryParsesIt) {
  std::string many = "{";
  for (int i = 0; i < 40; ++i)
    many += "\"k" + std::to_string(i % 30) + "\":" + std::to_string(i) + ",";
  many += R"("last":[{"a":{}},[],1.5,-2,true,null,"\u00e9"]})";
  for (const std::string& text :
       {many, std::string(R"({"a":1,"b":2,"a":{"c":3}})"), std::string("[]"), std::string("7")}) {
    EXPECT_EQ(parse_ordered(text).dump(), Json::parse(text).dump());
  }
  for (const char* text : {"", "{", "{\"a\":1}x", "[1,]", "\"\xff\"", "{\"a\"}"}) {
    EXPECT_TRUE(parse_ordered(text).is_discarded()) << text;
  }
}

TEST(JsonText, DepthIsThatOfListsAndObjectsOutsideTexts) {
  EXPECT_FALSE(is_deeper(R"([{"[[[[\"[[[":[]}])", 3));
  EXPECT_TRUE(is_deeper(R"([{"a":[]}])", 2));
  EXPECT_FALSE(is_deeper("[][][]]]]][[", 2));
  EXPECT_TRUE(is_deeper(std::string(kMostJsonDepth + 1, '{')));
  EXPECT_FALSE(is_deeper("\"\\"));
}

}  // namespace
}  // namespace cairn::detail
