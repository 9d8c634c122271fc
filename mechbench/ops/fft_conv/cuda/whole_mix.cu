// The long convolution of an order-2 Hyena with what stands around it, of rows that one block
// holds.

struct Piecewise {
  static __device__ __forceinline__ int time(int q) { return PIECE * q; }
  static __device__ __forceinline__ bool follows(int q) { return q % 32 != 0; }
};

// The elements of a thread from a source, with their twist.
template <class Source>
__device__ __forceinline__ void read_source(
    Value* x, const Source& source, int thread, Value* shared) {
  float* reals = reinterpret_cast<float*>(shared);
  fill<E / PIECE, T, Piecewise>(reals, source, thread);
#pragma unroll
  for (int e = 0; e < E; ++e)
    x[e] = twisted<Twisted>(reals[real_place(Twisted::index(e, thread))], e);
  __syncthreads();
}

extern "C" {

// w, z and y (B, D, L) of the first N tokens, and z of the `late` ones behind them. Rows of w and z
// are `width` apart. A block a row, as in `convolve`. A thread reads back pieces of w that it
// wrote.
__global__ void __launch_bounds__(T, BLOCKS) mix(
    const REAL* p, const float* taps, const float* bias, const float* shift, const float* skip,
    const Value* H, REAL* w, REAL* z, REAL* y, int B, int D, int L, int late, int width,
    long long p_batch, long long p_channel, long long y_batch, long long y_channel) {
  extern __shared__ Value shared[];
  float* reals = reinterpret_cast<float*>(shared);
  int thread = threadIdx.x;
  const long long d = blockIdx.x / B, b = blockIdx.x % B, row = (b * D + d) * width;
  const Projections all = {p, p_batch, p_channel, taps, bias, shift, D, L};
  const Row<REAL> kept = {w + row, L};
  Value x[E];
  read_source(x, Gated{all.of(0, b, d), all.of(1, b, d), kept}, thread, shared);
  Twisted::forward(x, thread, shared, Padded());
  multiply<false>(x, H, d, thread);
  thread = again(thread);
  Twisted::inverse(x, thread, shared, Padded());
  __syncthreads();
#pragma unroll
  for (int e = 0; e < E; ++e)
    reals[real_place(Twisted::index(e, thread))] = untwisted<Twisted>(x[e], e);
  if (thread < late) write(z + row + N + thread, untwisted_late<Twisted>(x[0], 0));
  thread = again(thread);
  const Row<REAL> out = {y + b * y_batch + d * y_channel, L};
  const Row<const REAL> back = {w + row, L};
  const Mixed sink = {all.of(2, b, d), back, Row<REAL>{z + row, L}, out, skip[d]};
  drain<E / PIECE, T, Piecewise>(reals, sink, thread);
}

// `adjoint` of dz = dy s(x2), for the channels from `first` on. The `late` last of dz (B, D, late)
// stand for themselves. Rows of dw are `width` apart.
__global__ void __launch_bounds__(T, BLOCKS) mix_adjoint(
    const REAL* p, const float* taps, const float* bias, const float* shift, const REAL* dy,
    const REAL* last, const Value* H, REAL* dw, Value* dZ, int first, int B, int D, int L, int late,
    int width, long long p_batch, long long p_channel, long long dy_batch, long long dy_channel) {
  extern __shared__ Value shared[];
  int thread = threadIdx.x;
  const long long row = blockIdx.x, d = first + row / B, b = row % B;
  const Projections all = {p, p_batch, p_channel, taps, bias, shift, D, L};
  const Row<const REAL> gradient = {dy + b * dy_batch + d * dy_channel, L};
  Value x[E];
  read_source(x, Gradient{gradient, all.of(2, b, d)}, thread, shared);
  if (thread < late)
    x[0] = x[0] + twisted_late<Twisted>(read(last + (b * D + d) * late + thread), 0);
  Twisted::forward(x, thread, shared, Padded());
  keep(x, dZ, row, thread);
  multiply<true>(x, H, d, thread);
  thread = again(thread);
  Twisted::inverse(x, thread, shared, Padded());
  write_untwisted<Twisted, E>(x, dw + (b * D + d) * width, 1, 0, N, L, thread, 1.0f);
}
}
