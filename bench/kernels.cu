// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// kernels [OUT.json]: each kernel of the library beside what Thrust, CUB and the runtime do for the same work, on the
// current GPU. Prints the median time of a launch and the bytes that it reads and writes a second, and writes both as JSON with
// machine, date, versions and commit (SHARDMESH_COMMIT). Results are compared byte for byte with the library's: exit 1 if one differs, 77
// where there is no GPU.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include <cub/device/device_for.cuh>
#include <cub/device/device_memcpy.cuh>
#include <cub/device/device_transform.cuh>
#include <cub/version.cuh>
#include <cuda/std/tuple>
#include <thrust/device_vector.h>
#include <thrust/execution_policy.h>
#include <thrust/for_each.h>
#include <thrust/iterator/constant_iterator.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>
#include <thrust/transform.h>

#include <shardmesh/memory/cuda/check.hpp>
#include <shardmesh/optim/kernels.cuh>

namespace sm = shardmesh;

namespace {

using Bytes = thrust::device_vector<unsigned char>;

cudaStream_t stream = nullptr;

void check(cudaError_t status) {
  sm::cuda::check(status, "bench/kernels");
}

/// Milliseconds of one launch: the median of seven batches of twenty.
double time_of(std::function<void()> const& launch) {
  cudaEvent_t start{};
  cudaEvent_t end{};
  check(cudaEventCreate(&start));
  check(cudaEventCreate(&end));
  constexpr int batch = 20;
  std::vector<double> times;
  for (int i = 0; i < 8; ++i) {
    check(cudaEventRecord(start, stream));
    for (int j = 0; j < batch; ++j) {
      launch();
    }
    check(cudaEventRecord(end, stream));
    check(cudaEventSynchronize(end));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, start, end));
    if (i > 0) {  // the first warms up
      times.push_back(static_cast<double>(milliseconds) / batch);
    }
  }
  check(cudaEventDestroy(start));
  check(cudaEventDestroy(end));
  std::nth_element(times.begin(), times.begin() + 3, times.end());
  return times[3];
}

struct Way {
  char const* name;
  std::function<void()> launch;
};

class Table {
 public:
  /// @param bytes   read and written by one launch.
  /// @param ways    the library's first.
  /// @param output  of all of them; set to what it was before each way runs once for the comparison.
  void add(std::string const& kernel,
           std::string const& work,
           double bytes,
           std::vector<Way> const& ways,
           Bytes& output) {
    Bytes const before = output;
    std::vector<unsigned char> expected;
    for (Way const& way : ways) {
      output = before;
      check(cudaDeviceSynchronize());
      way.launch();
      check(cudaStreamSynchronize(stream));
      std::vector<unsigned char> result(output.size());
      thrust::copy(output.begin(), output.end(), result.begin());
      if (expected.empty()) {
        expected = result;
      }
      bool const same = result == expected;
      wrong_ = wrong_ || !same;
      double const ms = time_of(way.launch);
      own_ = &way == &ways.front() ? ms : own_;
      std::printf("%-8s %-38s %-28s %8.4f ms %8.1f GB/s  %5.2f of the library's time%s\n",
                  kernel.c_str(), work.c_str(), way.name, ms, bytes / ms / 1e6, ms / own_,
                  same ? "" : "  OTHER BYTES");
      rows_ += (rows_.empty() ? "" : ",\n") + std::string("  {\"kernel\": \"") + kernel +
               "\", \"work\": \"" + work + "\", \"way\": \"" + way.name +
               "\", \"ms\": " + std::to_string(ms) +
               ", \"GB_per_s\": " + std::to_string(bytes / ms / 1e6) +
               ", \"same_bytes\": " + (same ? "true" : "false") + "}";
    }
  }

  [[nodiscard]] std::string const& rows() const noexcept { return rows_; }
  [[nodiscard]] bool wrong() const noexcept { return wrong_; }

 private:
  std::string rows_;
  double own_ = 0;
  bool wrong_ = false;
};

/// Numbers between -1 and 1, no two terms alike.
template <class E>
thrust::device_vector<E> numbers(std::size_t count, unsigned seed) {
  std::vector<E> host(count);
  std::uint32_t state = seed * 2654435761U + 1;
  for (E& one : host) {
    state = state * 1664525U + 1013904223U;
    one = E(static_cast<float>(state >> 8) / static_cast<float>(1U << 23) - 1.0F);
  }
  return host;
}

template <class T>
T* raw(thrust::device_vector<T>& vector) {
  return thrust::raw_pointer_cast(vector.data());
}

template <class E>
struct Sum {
  template <class... Others>
  __device__ E operator()(E first, Others... others) const {
    auto total = sm::detail::widen(first);
    ((total = sm::detail::combine<E>(sm::ReduceOp::sum, total, sm::detail::widen(others))), ...);
    return sm::detail::narrow<E>(total, 1);
  }
};

template <class E>
struct SumElement {
  E const* terms[8];
  int count;
  E* destination;
  __device__ void operator()(sm::index_t i) const {
    auto total = sm::detail::widen(terms[0][i]);
    for (int j = 1; j < count; ++j) {
      total = sm::detail::combine<E>(sm::ReduceOp::sum, total, sm::detail::widen(terms[j][i]));
    }
    destination[i] = sm::detail::narrow<E>(total, 1);
  }
};

template <class E>
void reduce(Table& table, sm::DType dtype, char const* type, std::size_t bytes, int terms) {
  std::size_t const count = bytes / sizeof(E);
  std::vector<thrust::device_vector<E>> sources;
  std::vector<void const*> addresses;
  SumElement<E> element{};
  for (int j = 0; j < terms; ++j) {
    sources.push_back(numbers<E>(count, static_cast<unsigned>(j) + 1));
  }
  for (int j = 0; j < terms; ++j) {
    addresses.push_back(raw(sources[static_cast<std::size_t>(j)]));
    element.terms[j] = raw(sources[static_cast<std::size_t>(j)]);
  }
  Bytes output(bytes);
  auto* const to = reinterpret_cast<E*>(raw(output));
  element.count = terms;
  element.destination = to;
  auto const n = static_cast<sm::index_t>(count);
  auto const cub_transform = [&] {
    auto const term = [&](int j) { return element.terms[j]; };
    if (terms == 2) {
      check(cub::DeviceTransform::Transform(cuda::std::make_tuple(term(0), term(1)), to, n,
                                            Sum<E>{}, stream));
    } else if (terms == 4) {
      check(cub::DeviceTransform::Transform(
          cuda::std::make_tuple(term(0), term(1), term(2), term(3)), to, n, Sum<E>{}, stream));
    } else {
      check(
          cub::DeviceTransform::Transform(cuda::std::make_tuple(term(0), term(1), term(2), term(3),
                                                                term(4), term(5), term(6), term(7)),
                                          to, n, Sum<E>{}, stream));
    }
  };
  table.add("reduce",
            std::string(type) + ", " + std::to_string(terms) + " terms of " +
                std::to_string(bytes >> 10) + " KiB",
            static_cast<double>(bytes) * (terms + 1),
            {{"library",
              [&] {
                check(sm::cuda::reduce_contiguous(dtype, sm::ReduceOp::sum, to, addresses.data(),
                                                  terms, n, stream));
              }},
             {"cub::DeviceTransform", cub_transform},
             {"cub::DeviceFor::Bulk", [&] { check(cub::DeviceFor::Bulk(n, element, stream)); }},
             {"thrust::for_each_n",
              [&] {
                thrust::for_each_n(thrust::cuda::par_nosync.on(stream),
                                   thrust::counting_iterator<sm::index_t>(0), n, element);
              }}},
            output);
}

template <class To, class From>
struct Convert {
  __device__ To operator()(From from) const { return sm::detail::convert_element<To>(from); }
};

template <class To, class From>
void convert(Table& table, sm::DType from, sm::DType to, char const* work, std::size_t count) {
  auto source = numbers<From>(count, 1);
  Bytes output(count * sizeof(To));
  auto* const target = reinterpret_cast<To*>(raw(output));
  auto const n = static_cast<sm::index_t>(count);
  table.add(
      "convert", std::string(work) + ", " + std::to_string(count >> 10) + " Ki elements",
      static_cast<double>(count) * (sizeof(To) + sizeof(From)),
      {{"library",
        [&] { check(sm::cuda::convert_contiguous(from, raw(source), to, target, n, stream)); }},
       {"cub::DeviceTransform",
        [&] {
          check(
              cub::DeviceTransform::Transform(raw(source), target, n, Convert<To, From>{}, stream));
        }},
       {"thrust::transform",
        [&] {
          thrust::transform(thrust::cuda::par_nosync.on(stream), raw(source), raw(source) + n,
                            target, Convert<To, From>{});
        }}},
      output);
}

/// Address of a row.
template <class Byte>
struct RowAt {
  Byte* first;
  std::size_t pitch;
  __host__ __device__ Byte* operator()(std::size_t row) const { return first + row * pitch; }
};

/// Packs the columns that a rank sends: rows of `width` bytes, `pitch` apart, behind one another.
void copy(Table& table, std::size_t width, std::size_t pitch, std::size_t rows) {
  auto source = numbers<float>(pitch * rows / sizeof(float), 1);
  Bytes output(width * rows);
  auto const* const from = reinterpret_cast<unsigned char const*>(raw(source));
  auto* const to = raw(output);
  sm::CollapsedCopy rows_of{};
  rows_of.source = reinterpret_cast<std::byte const*>(from);
  rows_of.destination = reinterpret_cast<std::byte*>(to);
  rows_of.row_bytes = width;
  rows_of.extent = {static_cast<sm::index_t>(rows)};
  rows_of.source_strides = {static_cast<sm::index_t>(pitch)};
  rows_of.destination_strides = {static_cast<sm::index_t>(width)};
  thrust::counting_iterator<std::size_t> const number(0);
  auto const in = thrust::make_transform_iterator(number, RowAt<unsigned char const>{from, pitch});
  auto const out = thrust::make_transform_iterator(number, RowAt<unsigned char>{to, width});
  auto const sizes = thrust::constant_iterator<std::size_t>(width);
  auto const count = static_cast<std::int64_t>(rows);
  std::size_t scratch_bytes = 0;
  check(cub::DeviceMemcpy::Batched(nullptr, scratch_bytes, in, out, sizes, count, stream));
  Bytes scratch(scratch_bytes);
  table.add("copy",
            std::to_string(rows) + " rows of " + std::to_string(width) + " of " +
                std::to_string(pitch) + " bytes",
            2.0 * static_cast<double>(width * rows),
            {{"library", [&] { check(sm::cuda::copy_rows(rows_of, stream)); }},
             {"cudaMemcpy2DAsync",
              [&] {
                check(cudaMemcpy2DAsync(to, width, from, pitch, width, rows,
                                        cudaMemcpyDeviceToDevice, stream));
              }},
             {"cub::DeviceMemcpy::Batched",
              [&] {
                check(cub::DeviceMemcpy::Batched(raw(scratch), scratch_bytes, in, out, sizes, count,
                                                 stream));
              }}},
            output);
}

void adam(Table& table, std::size_t count) {
  auto gradient = numbers<float>(count, 2);
  auto average = numbers<float>(count, 3);
  thrust::device_vector<float> square(count, 0.5F);
  Bytes output(count * sizeof(float), 1);
  sm::AdamUpdate update{};
  update.weight = reinterpret_cast<float*>(raw(output));
  update.gradient = raw(gradient);
  update.exp_avg = raw(average);
  update.exp_avg_sq = raw(square);
  update.rate = 1e-3F;
  update.keep1 = 0;  // each way finds the averages as the last one did
  update.beta2 = 1;
  update.keep2 = 0;
  update.eps = 1e-8F;
  auto const n = static_cast<sm::index_t>(count);
  table.add("adam", std::to_string(count >> 10) + " Ki elements",
            static_cast<double>(count) * 7 * sizeof(float),
            {{"library", [&] { check(sm::cuda::launch_for_each(n, update, stream)); }},
             {"cub::DeviceFor::Bulk", [&] { check(cub::DeviceFor::Bulk(n, update, stream)); }},
             {"thrust::for_each_n",
              [&] {
                thrust::for_each_n(thrust::cuda::par_nosync.on(stream),
                                   thrust::counting_iterator<sm::index_t>(0), n, update);
              }}},
            output);
}

}  // namespace

int main(int argc, char** argv) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("SKIP: no usable GPU on this machine");
    return 77;
  }
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cudaDeviceProp card{};
  check(cudaGetDeviceProperties(&card, 0));
  std::printf("%s, CUDA %d, CUB %d\n", card.name, CUDART_VERSION, CUB_VERSION);
  Table table;
  for (std::size_t const bytes :
       {std::size_t{1} << 16, std::size_t{4} << 20, std::size_t{128} << 20}) {
    for (int const terms : {2, 4, 8}) {
      reduce<float>(table, sm::DType::float32, "float32", bytes, terms);
      reduce<sm::BFloat16>(table, sm::DType::bfloat16, "bfloat16", bytes, terms);
    }
    std::size_t const count = bytes / sizeof(float);
    convert<sm::BFloat16, float>(table, sm::DType::float32, sm::DType::bfloat16,
                                 "float32 to bfloat16", count);
    convert<float, sm::BFloat16>(table, sm::DType::bfloat16, sm::DType::float32,
                                 "bfloat16 to float32", count);
    adam(table, count);
  }
  for (std::size_t const width : {std::size_t{256}, std::size_t{2000}, std::size_t{8192}}) {
    copy(table, width, 4 * width, 1024);
    copy(table, width, 4 * width, 65536);
  }
  if (argc > 1) {
    char date[16]{};
    std::time_t const now = std::time(nullptr);
    std::strftime(date, sizeof date, "%Y-%m-%d", std::gmtime(&now));
    char const* const commit = std::getenv("SHARDMESH_COMMIT");
    std::FILE* const file = std::fopen(argv[1], "w");
    if (file == nullptr) {
      std::perror(argv[1]);
      return 1;
    }
    std::fprintf(file,
                 "{\n \"benchmark\": \"kernels\",\n \"machine\": {\"gpu\": \"%s\"},\n \"date\": "
                 "\"%s\",\n \"commit\": \"%s\",\n"
                 " \"versions\": {\"cuda\": %d, \"cub\": %d},\n \"rows\": [\n%s\n ]\n}\n",
                 card.name, date, commit == nullptr ? "unknown" : commit, CUDART_VERSION,
                 CUB_VERSION, table.rows().c_str());
    std::fclose(file);
  }
  return table.wrong() ? 1 : 0;
}
