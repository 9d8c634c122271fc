// Long convolution of rows whose transform one block holds.
//
// Spectra lie in memory as threads hold them: element e of thread t at e T + t.
// Defined on the way in: RADICES, ELEMENTS (a thread), REAL (type of the rows).

typedef Radices<RADICES> Plan;
constexpr int E = ELEMENTS, N = Plan::length, T = N / E;

struct Padded {  // so that sixteen threads reach sixteen pairs of banks, at any stage
  __device__ __forceinline__ int operator()(int p) const { return p + (p >> 4); }
};
typedef Transform<Plan, E, true, Padded> Twisted;

extern "C" {

// Spectra (D, N) of the filters h (D, K), times `scale`. A block a filter.
__global__ void __launch_bounds__(T) spectra(const float* h, Value* H, int K, float scale) {
  extern __shared__ Value shared[];
  const int thread = threadIdx.x;
  const long long d = blockIdx.x;
  Value x[E];
  read_twisted<Twisted, E>(x, h + d * K, 1, 0, K < N ? K : N, thread, scale);
  Twisted::forward(x, thread, shared, Padded());
#pragma unroll
  for (int e = 0; e < E; ++e) H[d * N + e * T + thread] = x[e];
}

// z (B, D, L) = v * h, or its correlation with h where `adjoint`. A block a row, the rows of a
// channel one after another, so that its spectrum stays in the L2 cache. Spectra of v are written
// to `kept` (D, B, N), unless that is null.
__global__ void __launch_bounds__(T) convolve(
    const REAL* v, const Value* H, REAL* z, Value* kept, int B, int L, long long v_batch,
    long long v_channel, long long z_batch, long long z_channel, int adjoint) {
  extern __shared__ Value shared[];
  const int thread = threadIdx.x;
  const long long row = blockIdx.x, d = row / B, b = row % B;
  Value x[E];
  read_twisted<Twisted, E>(x, v + b * v_batch + d * v_channel, 1, 0, L, thread, 1.0f);
  Twisted::forward(x, thread, shared, Padded());
  if (kept) {
#pragma unroll
    for (int e = 0; e < E; ++e) kept[row * N + e * T + thread] = x[e];
  }
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const Value factor = H[d * N + e * T + thread];
    x[e] = x[e] * (adjoint ? conj(factor) : factor);
  }
  Twisted::inverse(x, thread, shared, Padded());
  write_untwisted<Twisted, E>(x, z + b * z_batch + d * z_channel, 1, 0, L, thread, 1.0f);
}

// Sums over parts of the batch, (parts, D, N): spectra dZ (D, B, N) times those of v, conjugate.
__global__ void __launch_bounds__(T) correlate(
    const Value* dZ, const REAL* v, Value* sums, int B, int L, long long batch, long long channel) {
  extern __shared__ Value shared[];
  const long long d = blockIdx.x, part = blockIdx.y;
  Value sum[E];
#pragma unroll
  for (int e = 0; e < E; ++e) sum[e] = {0.0f, 0.0f};
#pragma unroll 1
  for (long long b = part; b < B; b += gridDim.y) {
    int thread = threadIdx.x;
    asm volatile("" : "+r"(thread));  // factors are computed anew: kept, they take all registers
    Value x[E];
    read_twisted<Twisted, E>(x, v + b * batch + d * channel, 1, 0, L, thread, 1.0f);
    Twisted::forward(x, thread, shared, Padded());
#pragma unroll
    for (int e = 0; e < E; ++e)
      sum[e] = sum[e] + dZ[(d * B + b) * N + e * T + thread] * conj(x[e]);
    __syncthreads();
  }
#pragma unroll
  for (int e = 0; e < E; ++e) sums[(part * gridDim.x + d) * N + e * T + threadIdx.x] = sum[e];
}

// dh (D, K) from `parts` sums of spectra. A block a filter.
__global__ void __launch_bounds__(T) finish(
    const Value* sums, float* dh, int parts, int K, int L, float scale) {
  extern __shared__ Value shared[];
  const int thread = threadIdx.x;
  const long long d = blockIdx.x;
  Value x[E];
#pragma unroll
  for (int e = 0; e < E; ++e) {
    x[e] = {0.0f, 0.0f};
    for (long long part = 0; part < parts; ++part)
      x[e] = x[e] + sums[(part * gridDim.x + d) * N + e * T + thread];
  }
  Twisted::inverse(x, thread, shared, Padded());
  write_untwisted<Twisted, E>(x, dh + d * K, 1, 0, K < L ? K : L, thread, scale);
}
}
