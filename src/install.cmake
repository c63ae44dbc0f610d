# Installs the library and the package files that make find_package(cairn) work.
include(CMakePackageConfigHelpers)

install(TARGETS ${CAIRN_EXPORTED} cairn_all EXPORT cairnTargets FILE_SET HEADERS)
install(EXPORT cairnTargets NAMESPACE cairn:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/cairn)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/cairnConfig.cmake.in
  ${PROJECT_BINARY_DIR}/cairnConfig.cmake INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/cairn)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/cairnConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/cairnConfig.cmake ${PROJECT_BINARY_DIR}/cairnConfigVersion.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/cairn)
if(CAIRN_BUILD_TOOLS)
  install(TARGETS cairn-tool)
endif()
