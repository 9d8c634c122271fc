// Long convolution of rows whose transform one block holds.

// The gradient (K,) of filter d from its spectrum, of its first N numbers.
__device__ __forceinline__ void write_gradient(
    Value* x, float* dh, long long d, int K, int L, float scale, Value* shared) {
  const int thread = again(threadIdx.x);
  Twisted::inverse(x, thread, shared, Padded());
  write_untwisted<Twisted, E>(x, dh + d * K, 1, 0, N, inside(K < L ? K : L), thread, scale);
}

extern "C" {

// Spectra (D, N) of the filters h (D, K), times `scale`. A block a filter.
__global__ void __launch_bounds__(T) spectra(
    const float* h, Value* H, int K, float scale) {
  extern __shared__ Value shared[];
  const int thread = threadIdx.x;
  const long long d = blockIdx.x;
  Value x[E];
  read_twisted<Twisted, E>(x, h + d * K, 1, 0, N, inside(K), thread, scale);
  Twisted::forward(x, thread, shared, Padded());
  keep(x, H, d, thread);
}

// z (B, D, L) = v * h, of the first N numbers of v. A block a row, the rows of a channel one after
// another, so that its spectrum stays in the L2 cache.
__global__ void __launch_bounds__(T, BLOCKS) convolve(
    const REAL* v, const Value* H, REAL* z, int B, int L, long long v_batch,
    long long v_channel) {
  extern __shared__ Value shared[];
  int thread = threadIdx.x;
  const long long d = blockIdx.x / B, b = blockIdx.x % B;
  Value x[E];
  read_twisted<Twisted, E>(x, v + b * v_batch + d * v_channel, 1, 0, N, inside(L), thread, 1.0f);
  Twisted::forward(x, thread, shared, Padded());
  multiply<false>(x, H, d, thread);
  thread = again(thread);
  Twisted::inverse(x, thread, shared, Padded());
  write_untwisted<Twisted, E>(x, z + (b * (gridDim.x / B) + d) * L, 1, 0, N, L, thread, 1.0f);
}

// dv (B, D, L), the correlation of dz with h, of its first N numbers, for grid.x / B channels of D.
// Spectra of dz are written to dZ (D, B, N).
__global__ void __launch_bounds__(T, BLOCKS) adjoint(
    const REAL* dz, const Value* H, REAL* dv, Value* dZ, int B, int L, long long dz_batch,
    long long dz_channel, long long dv_batch) {
  extern __shared__ Value shared[];
  int thread = threadIdx.x;
  const long long row = blockIdx.x, d = row / B, b = row % B;
  Value x[E];
  read_twisted<Twisted, E>(x, dz + b * dz_batch + d * dz_channel, 1, 0, N, L, thread, 1.0f);
  Twisted::forward(x, thread, shared, Padded());
  keep(x, dZ, row, thread);
  multiply<true>(x, H, d, thread);
  thread = again(thread);
  Twisted::inverse(x, thread, shared, Padded());
  write_untwisted<Twisted, E>(x, dv + b * dv_batch + d * L, 1, 0, N, inside(L), thread, 1.0f);
}

// Sums over parts of the batch: spectra dZ (D, B, N) times those of v, conjugate. Those of one part
// become dh (D, K) at once, of more they are written to `sums` (parts, D, N).
__global__ void __launch_bounds__(T) correlate(
    const Value* dZ, const REAL* v, Value* sums, float* dh, int B, int L,
    long long batch, long long channel, int K, float scale) {
  extern __shared__ Value shared[];
  const long long d = blockIdx.x, part = blockIdx.y;
  Value sum[E];
#pragma unroll
  for (int e = 0; e < E; ++e) sum[e] = {0.0f, 0.0f};
#pragma unroll 1
  for (long long b = part; b < B; b += gridDim.y) {
    const int thread = again(threadIdx.x);
    Value x[E];
    read_twisted<Twisted, E>(x, v + b * batch + d * channel, 1, 0, N, inside(L), thread, 1.0f);
    Twisted::forward(x, thread, shared, Padded());
#pragma unroll
    for (int e = 0; e < E; ++e)
      sum[e] = sum[e] + dZ[(d * B + b) * N + e * T + thread] * conj(x[e]);
    __syncthreads();
  }
  if (gridDim.y == 1) {
    write_gradient(sum, dh, d, K, L, scale, shared);
    return;
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
  for (int e = 0; e < E; ++e) x[e] = {0.0f, 0.0f};
#pragma unroll 1
  for (long long part = 0; part < parts; ++part) {
#pragma unroll
    for (int e = 0; e < E; ++e)
      x[e] = x[e] + sums[(part * gridDim.x + d) * N + e * T + thread];
  }
  write_gradient(x, dh, d, K, L, scale, shared);
}
}
