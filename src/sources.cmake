# The sources of the library, layer by layer (docs/design.md). No globs: a file not named is not built.
set(CAIRN_PUBLIC_HEADERS
  include/cairn/checkpoint.hpp
  include/cairn/comm.hpp
  include/cairn/config.hpp
  include/cairn/context.hpp
  include/cairn/dtype.hpp
  include/cairn/error.hpp
  include/cairn/export.hpp
  include/cairn/manifest.hpp
  include/cairn/placement.hpp
  include/cairn/tensor_view.hpp
  include/cairn/version.hpp)

target_sources(cairn_core_obj PRIVATE
  src/base/error.cpp
)

set(CAIRN_TORCH_SOURCES
)
