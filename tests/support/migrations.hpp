#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/throw.hpp"
#include "cairn/error.hpp"
#include "pipeline/migrations/migrate.hpp"

// Checkpoints without files, for tests of migrations, and what they ask of them.
namespace cairn::detail::migrations {

/// A container whose tensors lie one behind the other in one file.
inline Manifest container(const std::vector<std::pair<std::string, Shape>>& tensors) {
  Manifest manifest;
  manifest.format = "cairn";
  manifest.files.push_back({"a.h5", 1 << 20});
  std::uint64_t at = 1000;
  for (const auto& [name, shape] : tensors) {
    TensorEntry entry;
    entry.name = name;
    entry.shape = shape;
    entry.offset = at;
    Extent extent;
    extent.offset = at;
    extent.box = Box::whole(shape);
    extent.digest = at;
    extent.writer = 0;
    entry.extents.push_back(extent);
    at += entry.bytes();
    manifest.tensors.push_back(std::move(entry));
  }
  return manifest;
}

inline Manifest of_model(const std::vector<std::string>& names) {
  std::vector<std::pair<std::string, Shape>> tensors;
  for (const std::string& name : names) tensors.push_back({"model/" + name, {4, 2}});
  return container(tensors);
}

inline Bytes no_bytes() {
  return {[](const TensorEntry& a, const TensorEntry& b) { return a.offset == b.offset; },
          [](const TensorEntry&) {
            return std::vector<std::int64_t>{2, 0, 3, 1};
          }};
}

inline Migration migration(const std::string& steps, const std::string& name = "1_test",
                           const std::string& version = "1.0") {
  return parse_migration("version: '" + version + "'\nsteps:\n" + steps, name, name + ".yaml");
}

inline Migrated forward(const Manifest& manifest, const std::string& steps) {
  return migrate_forward(manifest, {migration(steps)}, "", no_bytes(), "now");
}

inline std::vector<std::string> names_of(const Manifest& manifest) {
  std::vector<std::string> names;
  for (const TensorEntry& tensor : manifest.tensors) names.push_back(tensor.name);
  return names;
}

inline Json document(const Manifest& manifest, const std::string& name) {
  const auto found = manifest.documents.find(name);
  return found == manifest.documents.end() ? Json() : Json::parse(found->second);
}

/// The element of a tensor as a byte of its file.
inline std::uint64_t place_of(const TensorEntry& tensor, const Shape& index) {
  for (const Extent& extent : tensor.extents) {
    std::uint64_t at = 0;
    bool inside = true;
    for (std::size_t d = 0; d < index.size(); ++d) {
      inside = inside && index[d] >= extent.box.start[d] &&
               index[d] < extent.box.start[d] + extent.box.count[d];
      at = at * extent.box.count[d] + index[d] - extent.box.start[d];
    }
    if (inside) return extent.offset + at * item_bytes(tensor.dtype);
  }
  return 0;
}

/// What came back is what there was: names, places, dtypes and documents.
inline void expect_way_back(const Manifest& manifest, const Migrated& migrated) {
  const Migrated back = migrate_back(migrated.manifest, "", no_bytes());
  EXPECT_EQ(back.manifest.documents, manifest.documents);
  ASSERT_EQ(names_of(back.manifest), names_of(manifest));
  for (std::size_t t = 0; t < manifest.tensors.size(); ++t) {
    const TensorEntry& a = manifest.tensors[t];
    const TensorEntry& b = back.manifest.tensors[t];
    ASSERT_EQ(a.shape, b.shape) << a.name;
    EXPECT_EQ(a.dtype, b.dtype);
    for (std::uint64_t n = 0; n < element_count(a.shape); ++n) {
      Shape index(a.shape.size());
      std::uint64_t rest = n;
      for (std::size_t d = a.shape.size(); d-- > 0; rest /= a.shape[d])
        index[d] = rest % a.shape[d];
      ASSERT_EQ(place_of(a, index), place_of(b, index)) << a.name << " " << n;
    }
  }
  EXPECT_TRUE(back.casts.empty());
}

template <class F>
void expect_error(Errc code, const std::string& text, F&& body) {
  try {
    body();
    ADD_FAILURE() << "no error: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

}  // namespace cairn::detail::migrations
