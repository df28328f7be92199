# What comes beside shardmesh::shardmesh, which is there already, where its libraries are found:
# shardmesh::cuda, shardmesh::nccl: the same with the CUDA runtime, and with NCCL.
# shardmesh::mpi: the same with MPI.
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
