// Long convolution of rows longer than a block, in three steps.

template <class Real>
__device__ __forceinline__ void transform_columns(
    const Real* x, Value* X, int D, int L, long long batch, long long channel, float scale) {
  extern __shared__ Value shared[];
  const Beside place = {static_cast<int>(threadIdx.x % WIDTH)};
  const int column = blockIdx.x * WIDTH + place.column, thread = threadIdx.x / WIDTH;
  const long long row = blockIdx.y, b = row / D, d = row % D;
  Value y[E];
  read_twisted<Columns, E>(y, x + b * batch + d * channel, C, column, N, L, thread, scale);
  put_columns(y, X, row, column, thread, place, shared);
}

template <class Real>
__device__ __forceinline__ void restore_columns(
    const Value* X, Real* x, int D, int L, long long batch, long long channel, float scale) {
  extern __shared__ Value shared[];
  const Beside place = {static_cast<int>(threadIdx.x % WIDTH)};
  const int column = blockIdx.x * WIDTH + place.column, thread = threadIdx.x / WIDTH;
  const long long row = blockIdx.y, b = row / D, d = row % D;
  Value y[E];
  get_columns(y, X, row, column, thread, place, shared);
  write_untwisted<Columns, E>(y, x + b * batch + d * channel, C, column, N, L, thread, scale);
}

extern "C" {

// Lines X (B D, R, C) of the rows x (B, D, L). Grid: blocks of columns, rows.
__global__ void __launch_bounds__(DOWN_THREADS) columns(
    const REAL* x, Value* X, int D, int L, long long batch, long long channel, float scale) {
  transform_columns(x, X, D, L, batch, channel, scale);
}
__global__ void __launch_bounds__(DOWN_THREADS) filter_columns(
    const float* x, Value* X, int D, int L, long long batch, long long channel, float scale) {
  transform_columns(x, X, D, L, batch, channel, scale);
}

// The inverse of `columns`: L numbers of each row.
__global__ void __launch_bounds__(DOWN_THREADS) uncolumns(
    const Value* X, REAL* x, int D, int L, long long batch, long long channel, float scale) {
  restore_columns(X, x, D, L, batch, channel, scale);
}
__global__ void __launch_bounds__(DOWN_THREADS) filter_uncolumns(
    const Value* X, float* x, int D, int L, long long batch, long long channel, float scale) {
  restore_columns(X, x, D, L, batch, channel, scale);
}

// The lines V (B, D, R, C) become their product with those of the filters H (D, R, C). Where
// `keep`, H becomes its lines' transforms. Grid: blocks of lines, channels.
__global__ void __launch_bounds__(ALONG_THREADS, LINE_BLOCKS) multiply_lines(
    Value* V, Value* H, int keep, int B) {
  extern __shared__ Value shared[];
  const int thread = threadIdx.x % LINE_THREADS, among = threadIdx.x / LINE_THREADS;
  const Padded place = {among * (C + C / 16)};
  const int line = blockIdx.x * LINES + among;
  const long long d = blockIdx.y, D = gridDim.y;
  Value h[E];
  read_line(h, H, d, line, thread);
  Lines::forward(h, thread, shared, place);
  if (keep) write_line(h, H, d, line, thread);
  __syncthreads();
  for (long long b = 0; b < B; ++b) {
    Value x[E];
    read_line(x, V, b * D + d, line, thread);
    Lines::forward(x, thread, shared, place);
#pragma unroll
    for (int e = 0; e < E; ++e) x[e] = x[e] * h[e];
    Lines::inverse(x, thread, shared, place);
    write_line(x, V, b * D + d, line, thread);
  }
}

// The whole backward between the columns: dZ becomes its product with the conjugate of H,
// transforms that were kept, and dH (D, R, C) the sum over the batch of dZ times the conjugate of
// V.
__global__ void __launch_bounds__(ALONG_THREADS, BACKWARD_BLOCKS) backward_lines(
    Value* dZ, const Value* V, const Value* H, Value* dH, int B) {
  extern __shared__ Value shared[];
  const int thread = threadIdx.x % LINE_THREADS, among = threadIdx.x / LINE_THREADS;
  const Padded place = {among * (C + C / 16)};
  const int line = blockIdx.x * LINES + among;
  const long long d = blockIdx.y, D = gridDim.y;
  Value sum[E];
#pragma unroll
  for (int e = 0; e < E; ++e) sum[e] = {0.0f, 0.0f};
  for (long long b = 0; b < B; ++b) {
    Value x[E], y[E];
    read_line(x, dZ, b * D + d, line, thread);
    read_line(y, V, b * D + d, line, thread);
    Lines::forward(x, thread, shared, place);
    __syncthreads();
    Lines::forward(y, thread, shared, place);
#pragma unroll
    for (int e = 0; e < E; ++e) {
      const long long i = d * N + line * C + Lines::index(e, thread);
      sum[e] = sum[e] + x[e] * conj(y[e]);
      x[e] = x[e] * conj(H[i]);
    }
    Lines::inverse(x, thread, shared, place);
    write_line(x, dZ, b * D + d, line, thread);
  }
  __syncthreads();
  Lines::inverse(sum, thread, shared, place);
  write_line(sum, dH, d, line, thread);
}
}
