# What comes beside shardmesh::shardmesh, which is there already, where its libraries are found:
# shardmesh::cuda, shardmesh::nccl: the same with the CUDA runtime, and with NCCL.
# shardmesh::mpi: the same with MPI.
# shardmesh::isal: the same with checksums by ISA-L; a program has all of its units with it, or none.
find_package(CUDAToolkit QUIET)
if(CUDAToolkit_FOUND AND NOT TARGET shardmesh::cuda)
  add_library(shardmesh::cuda INTERFACE IMPORTED)
  target_link_libraries(shardmesh::cuda INTERFACE shardmesh::shardmesh CUDA::cudart)
  find_library(shardmesh_NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
  if(shardmesh_NCCL_LIBRARY)
    add_library(shardmesh::nccl INTERFACE IMPORTED)
    target_link_libraries(shardmesh::nccl INTERFACE shardmesh::cuda ${shardmesh_NCCL_LIBRARY})
  endif()
endif()

find_package(MPI QUIET COMPONENTS CXX)
if(MPI_CXX_FOUND AND NOT TARGET shardmesh::mpi)
  add_library(shardmesh::mpi INTERFACE IMPORTED)
  target_compile_definitions(shardmesh::mpi INTERFACE OMPI_SKIP_MPICXX MPICH_SKIP_MPICXX)
  target_link_libraries(shardmesh::mpi INTERFACE shardmesh::shardmesh MPI::MPI_CXX)
endif()

find_path(shardmesh_ISAL_INCLUDE_DIR isa-l/crc.h)
find_library(shardmesh_ISAL_LIBRARY isal)
mark_as_advanced(shardmesh_ISAL_INCLUDE_DIR shardmesh_ISAL_LIBRARY)
if(shardmesh_ISAL_INCLUDE_DIR AND shardmesh_ISAL_LIBRARY AND NOT TARGET shardmesh::isal)
  add_library(shardmesh::isal INTERFACE IMPORTED)
  target_compile_definitions(shardmesh::isal INTERFACE SHARDMESH_HAVE_ISAL)
  target_include_directories(shardmesh::isal INTERFACE "${shardmesh_ISAL_INCLUDE_DIR}")
  target_link_libraries(shardmesh::isal INTERFACE shardmesh::shardmesh "${shardmesh_ISAL_LIBRARY}")
endif()
