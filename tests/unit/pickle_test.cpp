// The restricted pickle reader: what it reads, and what it refuses. Nothing in here can run code.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/error.hpp"
#include "formats/pickle/globals.hpp"
#include "formats/pickle/graph.hpp"
#include "formats/pickle/parse.hpp"
#include "formats/pickle/scanner.hpp"

namespace cairn::detail::pickle {
namespace {

using namespace std::string_view_literals;  // streams hold NULs

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto raw = std::as_bytes(std::span(text));
  return {raw.begin(), raw.end()};
}

std::vector<std::byte> bytes_of_hex(std::string_view hex) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

Graph parse_text(std::string_view text) { return parse(bytes_of(text), "test"); }

/// The code and text of the error that parsing gives.
std::pair<Errc, std::string> failure_of(std::string_view stream, const Limits& limits = {}) {
  try {
    parse(bytes_of(stream), "test", limits);
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  ADD_FAILURE() << "no error";
  return {};
}

// What Python 3.11 writes, in protocols 0 to 5, for
//   o = {"a": [1, -2, 300, -70000, 2**70, -2**70, 2.5, "\u00e9\n\\", b"\xff\0", None, True, (1, 2,
//   3, 4),
//        {7}, frozenset([8]), 1+2j, bytearray(b"xy")], "o": OrderedDict(k=1)}; o["self"] = o
constexpr std::array<std::string_view, 6> kSamples{
    "286470300a56610a70310a286c70320a49310a61492d320a61493330300a61492d37303030300a614c31313830"
    "3539313632303731373431313330333432344c0a614c2d31313830353931363230373137343131333033343234"
    "4c0a6146322e350a6156e95c75303030615c75303035630a70330a61635f636f646563730a656e636f64650a70"
    "340a2856ff5c75303030300a70350a566c6174696e310a70360a7470370a5270380a614e614930310a61284931"
    "0a49320a49330a49340a7470390a61635f5f6275696c74696e5f5f0a7365740a7031300a28286c7031310a4937"
    "0a61747031320a527031330a61635f5f6275696c74696e5f5f0a66726f7a656e7365740a7031340a28286c7031"
    "350a49380a61747031360a527031370a61635f5f6275696c74696e5f5f0a636f6d706c65780a7031380a284631"
    "2e300a46322e300a747031390a527032300a61635f5f6275696c74696e5f5f0a6279746561727261790a703231"
    "0a2867340a285678790a7032320a67360a747032330a527032340a747032350a527032360a6173566f0a703237"
    "0a63636f6c6c656374696f6e730a4f726465726564446963740a7032380a2874527032390a566b0a7033300a49"
    "310a73735673656c660a7033310a67300a732e",
    "7d71002858010000006171015d7102284b014afeffffff4d2c014a90eefeff4c31313830353931363230373137"
    "3431313330333432344c0a4c2d313138303539313632303731373431313330333432344c0a4740040000000000"
    "005804000000c3a90a5c7103635f636f646563730a656e636f64650a7104285803000000c3bf00710558060000"
    "006c6174696e3171067471075271084e4930310a284b014b024b034b04747109635f5f6275696c74696e5f5f0a"
    "7365740a710a285d710b4b076174710c52710d635f5f6275696c74696e5f5f0a66726f7a656e7365740a710e28"
    "5d710f4b0861747110527111635f5f6275696c74696e5f5f0a636f6d706c65780a711228473ff0000000000000"
    "474000000000000000747113527114635f5f6275696c74696e5f5f0a6279746561727261790a71152868042858"
    "0200000078797116680674711752711874711952711a6558010000006f711b63636f6c6c656374696f6e730a4f"
    "726465726564446963740a711c2952711d58010000006b711e4b0173580400000073656c66711f6800752e",
    "80027d71002858010000006171015d7102284b014afeffffff4d2c014a90eefeff8a090000000000000000408a"
    "090000000000000000c04740040000000000005804000000c3a90a5c7103635f636f646563730a656e636f6465"
    "0a71045803000000c3bf00710558060000006c6174696e3171068671075271084e88284b014b024b034b047471"
    "09635f5f6275696c74696e5f5f0a7365740a710a5d710b4b076185710c52710d635f5f6275696c74696e5f5f0a"
    "66726f7a656e7365740a710e5d710f4b0861857110527111635f5f6275696c74696e5f5f0a636f6d706c65780a"
    "7112473ff0000000000000474000000000000000867113527114635f5f6275696c74696e5f5f0a627974656172"
    "7261790a71156804580200000078797116680686711752711885711952711a6558010000006f711b63636f6c6c"
    "656374696f6e730a4f726465726564446963740a711c2952711d58010000006b711e4b0173580400000073656c"
    "66711f6800752e",
    "80037d71002858010000006171015d7102284b014afeffffff4d2c014a90eefeff8a090000000000000000408a"
    "090000000000000000c04740040000000000005804000000c3a90a5c71034302ff0071044e88284b014b024b03"
    "4b04747105636275696c74696e730a7365740a71065d71074b0761857108527109636275696c74696e730a6672"
    "6f7a656e7365740a710a5d710b4b086185710c52710d636275696c74696e730a636f6d706c65780a710e473ff0"
    "00000000000047400000000000000086710f527110636275696c74696e730a6279746561727261790a71114302"
    "787971128571135271146558010000006f711563636f6c6c656374696f6e730a4f726465726564446963740a71"
    "162952711758010000006b71184b0173580400000073656c6671196800752e",
    "800495da000000000000007d94288c0161945d94284b014afeffffff4d2c014a90eefeff8a0900000000000000"
    "00408a090000000000000000c04740040000000000008c04c3a90a5c944302ff00944e88284b014b024b034b04"
    "74948f94284b0790284b0891948c086275696c74696e73948c07636f6d706c6578949394473ff0000000000000"
    "4740000000000000008694529468088c09627974656172726179949394430278799485945294658c016f948c0b"
    "636f6c6c656374696f6e73948c0b4f726465726564446963749493942952948c016b944b01738c0473656c6694"
    "6800752e",
    "800595cd000000000000007d94288c0161945d94284b014afeffffff4d2c014a90eefeff8a0900000000000000"
    "00408a090000000000000000c04740040000000000008c04c3a90a5c944302ff00944e88284b014b024b034b04"
    "74948f94284b0790284b0891948c086275696c74696e73948c07636f6d706c6578949394473ff0000000000000"
    "47400000000000000086945294960200000000000000787994658c016f948c0b636f6c6c656374696f6e73948c"
    "0b4f726465726564446963749493942952948c016b944b01738c0473656c66946800752e"};

class Sample : public testing::TestWithParam<int> {};

TEST_P(Sample, IsReadInEveryProtocol) {
  const auto stream = bytes_of_hex(kSamples.at(static_cast<std::size_t>(GetParam())));
  std::size_t begun = 0;  // each time there is more of it, as of a file that is read on
  for (std::size_t count = 0; count < stream.size(); ++count) {
    EXPECT_EQ(length_of(std::span(stream).first(count), "test", begun), std::nullopt);
  }
  EXPECT_EQ(length_of(stream, "test", begun), stream.size());
  const Graph graph = parse(stream, "test");
  ASSERT_EQ(graph.kind(graph.root()), Kind::dict);
  EXPECT_EQ(graph.find(graph.root(), "self"), graph.root());
  const Ref ordered = graph.find(graph.root(), "o").value();
  EXPECT_EQ(graph.class_of(ordered), Class::ordered_dict);
  EXPECT_EQ(graph.integer(graph.find(ordered, "k").value()), 1);

  const auto a = graph.elements(graph.find(graph.root(), "a").value());
  ASSERT_EQ(a.size(), 16U);
  const std::int64_t numbers[] = {1, -2, 300, -70000};
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(graph.integer(a[i]), numbers[i]);
  EXPECT_EQ(graph.decimal(a[4]), "1180591620717411303424");
  EXPECT_EQ(graph.decimal(a[5]), "-1180591620717411303424");
  EXPECT_EQ(graph.real(a[6]), 2.5);
  EXPECT_TRUE(graph.is_text(a[7], "\xc3\xa9\n\\"));
  EXPECT_EQ(graph.kind(a[8]), Kind::bytes);
  EXPECT_EQ(graph.text(a[8]), std::string_view("\xff\0", 2));
  EXPECT_EQ(graph.kind(a[9]), Kind::none);
  EXPECT_EQ(graph.kind(a[10]), Kind::boolean);
  EXPECT_TRUE(graph.boolean(a[10]));
  EXPECT_EQ(graph.kind(a[11]), Kind::tuple);
  EXPECT_EQ(graph.integer(graph.elements(a[11])[3]), 4);
  EXPECT_EQ(graph.kind(a[12]), Kind::set);
  EXPECT_EQ(graph.integer(graph.elements(a[12])[0]), 7);
  EXPECT_EQ(graph.kind(a[13]), Kind::frozenset);
  EXPECT_EQ(graph.integer(graph.elements(a[13])[0]), 8);
  EXPECT_EQ(graph.kind(a[14]), Kind::complex);
  EXPECT_EQ(graph.real(graph.elements(a[14])[1]), 2);
  EXPECT_EQ(graph.kind(a[15]), Kind::bytearray);
  EXPECT_EQ(graph.text(a[15]), "xy");
}

TEST_P(Sample, IsRefusedWhereverItIsCut) {
  const auto stream = bytes_of_hex(kSamples.at(static_cast<std::size_t>(GetParam())));
  for (std::size_t size = 0; size < stream.size(); ++size) {
    try {
      parse({stream.begin(), stream.begin() + static_cast<std::ptrdiff_t>(size)}, "test");
      ADD_FAILURE() << "read at " << size;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::corrupt) << size << ": " << error.what();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Protocols, Sample, testing::Range(0, 6));

TEST(Pickle, AnUnknownClassBecomesARecord) {
  const Graph graph = parse_text(
      "\x80\x02"sv
      "csome.package\nThing\n)\x81}U\x01kK\x05"sv
      "sb.");
  ASSERT_EQ(graph.kind(graph.root()), Kind::object);
  const Object& object = graph.object(graph.root());
  EXPECT_EQ(graph.global(object.callee).qualified(), "some.package.Thing");
  EXPECT_FALSE(object.called);
  EXPECT_EQ(graph.integer(graph.find(object.state, "k").value()), 5);
}

TEST(Pickle, AnOutsideThingKeepsItsId) {
  const Graph graph = parse_text(
      "\x80\x02U\x07storageU\x01"sv
      "0\x86Q."sv);
  ASSERT_EQ(graph.kind(graph.root()), Kind::persistent);
  const auto id = graph.elements(graph.persistent_id(graph.root()));
  ASSERT_EQ(id.size(), 2U);
  EXPECT_TRUE(graph.is_text(id[0], "storage"));
}

TEST(Pickle, TheLastOfEqualKeysCounts) {
  const Graph graph = parse_text("\x80\x02}(U\x01wK\x01U\x01xK\x02U\x01wK\x03K\x01K\x04u."sv);
  const auto pairs = graph.pairs(graph.root());
  ASSERT_EQ(pairs.size(), 6U);
  EXPECT_TRUE(graph.is_text(pairs[0], "w"));
  EXPECT_EQ(graph.integer(pairs[1]), 3);
  EXPECT_TRUE(graph.is_text(pairs[2], "x"));
}

TEST(Pickle, ALargeDictIsLookedUpByTextAndHasEachKeyOnce) {
  std::string stream = "\x80\x02}(";
  const auto add = [&](const std::string& key, int value) {
    stream += key;
    stream += 'K';
    stream += static_cast<char>(value);
  };
  const auto text = [](const std::string& name) {
    return fmt::format("U{}{}", static_cast<char>(name.size()), name);
  };
  for (int i = 0; i < 38; ++i) add(text(fmt::format("k{}", i)), i);
  add("K\x01", 100);
  add("\x88", 101);  // True, which is 1
  add(text("1"), 102);
  add(text("k0"), 103);
  const Graph graph = parse_text(stream + "u.");
  const auto pairs = graph.pairs(graph.root());
  ASSERT_EQ(pairs.size(), 2 * 40U);
  EXPECT_TRUE(graph.is_text(pairs[0], "k0"));
  EXPECT_EQ(graph.integer(pairs[1]), 103);
  EXPECT_EQ(graph.integer(pairs[2 * 38 + 1]), 101);
  for (int i = 1; i < 38; ++i) {
    const auto found = graph.find(graph.root(), fmt::format("k{}", i));
    ASSERT_TRUE(found);
    EXPECT_EQ(graph.integer(*found), i);
  }
  EXPECT_EQ(graph.integer(*graph.find(graph.root(), "1")), 102);
  EXPECT_FALSE(graph.find(graph.root(), "k38"));
}

TEST(Pickle, NumbersThatAreEqualAreOneKeyWhateverTheirType) {
  const auto real = [](double value) {
    std::string bytes = "G";
    for (int shift = 56; shift >= 0; shift -= 8) {
      bytes += static_cast<char>(std::bit_cast<std::uint64_t>(value) >> shift);
    }
    return bytes;
  };
  const std::string complex = "c__builtin__\ncomplex\n" + real(1) + real(0) + "\x86R";
  for (const std::string& key : {std::string("\x88"), real(1), complex}) {
    const Graph graph = parse_text("\x80\x02}(K\x01K\x05" + key + "K\x06u.");
    const auto pairs = graph.pairs(graph.root());
    ASSERT_EQ(pairs.size(), 2U);
    EXPECT_EQ(graph.integer(pairs[0]), 1);
    EXPECT_EQ(graph.integer(pairs[1]), 6);
  }
  const std::string nan = real(std::numeric_limits<double>::quiet_NaN());
  const Graph apart = parse_text("\x80\x02}(" + real(0.5) + "N" + real(1e300) + "N" + nan + "N" +
                                 nan + "NK\x01Nu.");
  EXPECT_EQ(apart.pairs(apart.root()).size(), 10U);
}

TEST(Pickle, NumbersAndTextsOfOldProtocolsAreAsPythonReadsThem) {
  EXPECT_EQ(failure_of("I010\n.").first, Errc::corrupt);  // 8 or 10
  EXPECT_EQ(failure_of("L-010L\n.").first, Errc::corrupt);
  EXPECT_EQ(parse_text("I0\n.").integer(parse_text("I0\n.").root()), 0);
  const Graph plus = parse_text("F+1.5\n.");
  EXPECT_EQ(plus.real(plus.root()), 1.5);
  const Graph even = parse_text("V\\\\u0041\\\\\\u0041\n.");
  EXPECT_EQ(even.text(even.root()), "\\\\u0041\\\\A");
}

TEST(Pickle, ACounterOfAListIsNotItsPairs) {
  const Graph graph = parse_text("ccollections\nCounter\n(((Vx\nK\x05tttR."sv);
  EXPECT_EQ(graph.kind(graph.root()), Kind::object);
}

TEST(Pickle, ADictThatBecomesSmallByItsRepeatedKeys) {
  std::string stream = "\x80\x02}(";
  for (char i = 0; i < 40; ++i)
    stream += std::string("U\x01") + static_cast<char>('a' + i % 3) + "K" + i;
  const Graph graph = parse_text(stream + "u.");
  EXPECT_EQ(graph.pairs(graph.root()).size(), 6U);
  EXPECT_EQ(graph.integer(*graph.find(graph.root(), "a")), 39);
}

TEST(Pickle, KeysThatTakeTooLongToCompareAreRefused) {
  const std::string key(1 << 20, 'k');
  std::string stream = "\x80\x02(X";
  for (int shift = 0; shift < 32; shift += 8) stream += static_cast<char>(key.size() >> shift);
  stream += key + "q\x01";
  for (int i = 0; i < 2000; ++i) stream += "}(h\x01Nh\x01Nu";
  EXPECT_EQ(failure_of(stream + "t.").first, Errc::unsafe);
}

TEST(Pickle, TablesMayBeNestedAsTheyLike) {
  constexpr std::size_t kDepth = 100'000;
  const std::string stream = std::string(kDepth, ']') + std::string(kDepth - 1, 'a') + ".";
  EXPECT_EQ(failure_of(stream).first, Errc::unsafe);
  const Graph graph = parse(bytes_of(stream), "a table", limits_of_table(stream.size()));
  EXPECT_EQ(graph.kind(graph.root()), Kind::list);
}

TEST(Pickle, NamesThatRunCodeAreRefusedWhereverTheyAre) {
  const std::string_view streams[] = {
      "cos\nsystem\n.",            // as a value
      "(Vls\nios\nsystem\n.",      // INST
      "(cposix\nsystem\nVls\no.",  // OBJ
      "\x80\x02"sv
      "c__builtin__\neval\n0}.",                  // thrown away
      "\x80\x04\x8c\x02os\x8c\x06system\x93."sv,  // STACK_GLOBAL
      "\x80\x04\x8c\x13torch.serialization\x8c\x09os.system\x93."sv,
      "\x80\x04\x8c\x03pkg\x8c\x0b__globals__\x93."sv,
      "\x80\x02"sv
      "cpickle\nloads\n.",
      "\x80\x02"sv
      "cimportlib\nimport_module\n.",
      "\x80\x02"sv
      "csubprocess\nPopen\n)\x81."sv,
      "\x80\x02"sv
      "csys\nmodules\n.",
      "\x80\x02"sv
      "c__builtin__\ngetattr\n(cfoo\nBar\nX\x08\0\0\0__init__tR."sv,
      "\x80\x02"sv
      "coperator\nattrgetter\n(X\x09\0\0\0os.systemtR."sv,
      "\x80\x02"sv
      "cfunctools\npartial\ncos\nsystem\n\x85R."sv,
      "\x80\x02"sv
      "ctorch.storage\n_load_from_bytes\n.",
      "\x80\x02"sv
      "ctorch\nload\n.",
      "ccode\nInteractiveInterpreter\n(tR.",
      "ccode\ninteract\n.",
      "csite\naddsitedir\n(V/tmp\ntR.",
      "ctrace\nTrace\n.",
      "cprofile\nrun\n(V1\ntR.",
      "\x80\x04\x8c\x07profile\x8c\x0bProfile.run\x93."sv,
      "(c__builtin__\ngetattr\ncfoo\nBar\nV__init__\no.",  // also as OBJ and INST
      "(cfoo\nBar\nV__init__\ni__builtin__\ngetattr\n.",
      "\x80\x02\x82\x01."sv,  // EXT1
  };
  for (const std::string_view stream : streams) {
    const auto [code, text] = failure_of(stream);
    EXPECT_EQ(code, Errc::unsafe) << text;
  }
}

TEST(Pickle, OrdinaryNamesAreNoReasonToRefuse) {
  const std::pair<std::string_view, std::string_view> names[] = {
      {"__builtin__", "getattr"},
      {"builtins", "print"},
      {"functools", "partial"},
      {"torch._C._nn", "gelu"},
      {"torch.serialization", "_get_layout"},
      {"typing", "Any"},
      {"some.package.os_tools", "System"},
      {"datetime", "datetime"},
      {"uuid", "UUID"},
      {"torch.optim.sgd", "SGD"},
      {"numpy.random", "__RandomState_ctor"},
      {"enum", "Enum"},
      {"collections", "deque"},
      {"decimal", "Decimal"},
      {"random", "Random"},
      {"pydantic.main", "BaseModel"},
      {"builtins", "ValueError"},
      {"code.models", "Net"},
      {"code", "Config"},
      {"site.config", "Settings"},
      {"trace.records", "Record"},
      {"profile", "UserProfile"},
      {"signal", "Signals"}};
  for (const auto& [module, name] : names) {
    EXPECT_NE(class_of(module, name), Class::unsafe) << module << "." << name;
  }
}

TEST(Pickle, BrokenStreamsAreCorrupt) {
  const std::string_view streams[] = {"",
                                      "\x80\x02."sv,
                                      "\x80\x02NN."sv,
                                      "\x80\x02"sv
                                      "aaa.",
                                      "\x80\x02Nt."sv,
                                      "\x80\x02h\x07."sv,
                                      "\x80\x02\xff."sv,
                                      "\x80\x02}(U\x01"sv
                                      "aNU\x01"sv
                                      "bu.",
                                      "\x80\x02K\x01Na."sv,
                                      "\x80\x02}(]Nu."sv,
                                      "\x80\x02U\x01xNs."sv,
                                      "\x80\x02)}b."sv,
                                      "Iabc\n.",
                                      "L12x\n.",
                                      "Fnope\n.",
                                      "S'x\n.",
                                      "S'\\x4\n."sv,
                                      "V\\u12\n.",

                                      "g1\n.",
                                      "\x80\x02(N."sv,
                                      "\x80\x02(0(1N(."sv,
                                      "\x80\x02(NR."sv,
                                      "\x80\x02NNR."sv,
                                      "\x80\x02N)R."sv,
                                      "\x80\x02K\x01K\x02\x93."sv,
                                      "\x80\x02(o."sv,
                                      "\x80\x02}\x92."sv,
                                      "\x80\x04\x95\xff\0\0\0\0\0\0\0N."sv,
                                      "T\xff\xff\xff\xffN."sv,
                                      "\x8b\xff\xff\xff\xffN."sv,
                                      "X\xff\xff\xff\xffN."sv,
                                      "\x8d\0\0\0\0\0\0\0\x80N."sv,
                                      "\x8a\xff\x01."sv,
                                      "2.",
                                      "1.",
                                      "q\0."};
  for (const std::string_view stream : streams) {
    const auto [code, text] = failure_of(stream);
    EXPECT_EQ(code, Errc::corrupt) << text;
  }
  const auto text_as_class = failure_of("(U\xff" + std::string(255, 'A') + "o.");
  EXPECT_EQ(text_as_class.first, Errc::corrupt) << text_as_class.second;
  EXPECT_EQ(failure_of("\x80\x02X\x02\0\0\0\xc3\x28."sv).first, Errc::corrupt);
  EXPECT_EQ(failure_of("\x80\x06N."sv).first, Errc::unsupported);
  EXPECT_EQ(failure_of("\x80\x05\x97."sv).first, Errc::unsupported);
}

TEST(Pickle, LimitsHoldWithoutRecursionOrHugeTables) {
  const std::size_t n = 200'000;
  std::string lists = std::string(n, ']') + std::string(n - 1, 'a') + ".";
  EXPECT_EQ(failure_of(lists).first, Errc::unsafe);
  std::string tuples = ")";
  for (std::size_t i = 0; i < n; ++i) tuples += '\x85';
  EXPECT_EQ(failure_of(tuples + ".").first, Errc::unsafe);
  EXPECT_EQ(failure_of(std::string(n, '(') + "N" + std::string(n, 't') + ".").first, Errc::unsafe);
  EXPECT_EQ(failure_of("Nr\xff\xff\xff\xff."sv).first, Errc::unsafe);
  EXPECT_EQ(failure_of("L" + std::string(60'000, '9') + "L\n.").first, Errc::unsafe);
  const auto [code, text] = failure_of(std::string(n, ']') + ".", {.memory_bytes = 1 << 20});
  EXPECT_EQ(code, Errc::unsafe);
  EXPECT_NE(text.find("1 MiB"), std::string::npos) << text;
}

}  // namespace
}  // namespace cairn::detail::pickle
