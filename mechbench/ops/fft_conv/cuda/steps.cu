// Long convolution of rows longer than a block: in steps through memory.
//
// A row of N = R C numbers is a matrix, C of them a line. `columns` transforms its columns, in
// blocks of WIDTH side by side, and turns what it finds; `..._lines` transform its lines, multiply,
// and take them back; `uncolumns` ends it. Lines stand in digit-reversed order between the steps.
// Defined on the way in: ROWS and COLUMNS (radices of R and C), WIDTH, LINES (a block of `..._lines`
// holds), REAL (type of the rows).
//
// Source: Bailey 1990, "FFTs in external or hierarchical memory".

typedef Radices<ROWS> Down;
typedef Radices<COLUMNS> Along;
constexpr int E = 16;
constexpr int R = Down::length, C = Along::length;
constexpr long long N = static_cast<long long>(R) * C;

struct Beside {  // the columns of a block side by side
  int column;
  __device__ __forceinline__ int operator()(int p) const { return p * WIDTH + column; }
};
struct Padded {  // lines one after another, padded as in the transform of a whole row
  int first;
  __device__ __forceinline__ int operator()(int p) const { return first + p + (p >> 4); }
};
typedef Transform<Down, E, true, Beside> Columns;
typedef Transform<Along, E, false, Padded> Lines;
constexpr int DOWN_THREADS = WIDTH * (R / E), LINE_THREADS = C / E;
constexpr int ALONG_THREADS = LINES * LINE_THREADS;
constexpr int LINE_BLOCKS = 384 / ALONG_THREADS;  // a multiprocessor: what registers allow
constexpr int LAST = Down::at(Down::last);

// Factor exp(-2 pi i column (k - 1/4) / N) of the elements of the last stage, k their frequency.
template <bool INVERSE>
__device__ __forceinline__ void turn(Value* x, int column, int thread) {
  constexpr float sign = INVERSE ? 1.0f : -1.0f;
#pragma unroll
  for (int g = 0; g < E / LAST; ++g) {
    int group = thread + R / E * g, k = 0, weight = 1, rest = R / LAST;
#pragma unroll
    for (int s = 0; s < Down::last; ++s) {
      rest /= Down::at(s);
      k += group / rest * weight;
      group %= rest;
      weight *= Down::at(s);
    }
    const Value first = unit(sign * 0.5f / N * (static_cast<float>(column) * (4 * k - 1)));
    const Value step = unit(sign * 2.0f / N * (static_cast<float>(column) * (R / LAST)));
    multiply_powers<LAST>(x + g * LAST, first, step);
  }
}

template <class Real>
__device__ __forceinline__ void transform_columns(
    const Real* x, Value* X, int D, int L, long long batch, long long channel, float scale) {
  extern __shared__ Value shared[];
  const int column = blockIdx.x * WIDTH + threadIdx.x % WIDTH, thread = threadIdx.x / WIDTH;
  const Beside place = {static_cast<int>(threadIdx.x % WIDTH)};
  const long long row = blockIdx.y, b = row / D, d = row % D;
  Value y[E];
  read_twisted<Columns, E>(y, x + b * batch + d * channel, C, column, L, thread, scale);
  Columns::forward(y, thread, shared, place);
  turn<false>(y, column, thread);
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const int p = Columns::position<Down::last>(thread + R / E * (e / LAST), e % LAST);
    X[row * N + static_cast<long long>(p) * C + column] = y[e];
  }
}

template <class Real>
__device__ __forceinline__ void restore_columns(
    const Value* X, Real* x, int D, int L, long long batch, long long channel, float scale) {
  extern __shared__ Value shared[];
  const int column = blockIdx.x * WIDTH + threadIdx.x % WIDTH, thread = threadIdx.x / WIDTH;
  const Beside place = {static_cast<int>(threadIdx.x % WIDTH)};
  const long long row = blockIdx.y, b = row / D, d = row % D;
  Value y[E];
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const int p = Columns::position<Down::last>(thread + R / E * (e / LAST), e % LAST);
    y[e] = X[row * N + static_cast<long long>(p) * C + column];
  }
  turn<true>(y, column, thread);
  Columns::inverse(y, thread, shared, place);
  write_untwisted<Columns, E>(y, x + b * batch + d * channel, C, column, L, thread, scale);
}

__device__ __forceinline__ void read_line(Value* x, const Value* line, int thread) {
#pragma unroll
  for (int e = 0; e < E; ++e) x[e] = line[Lines::index(e, thread)];
}
__device__ __forceinline__ void write_line(const Value* x, Value* line, int thread) {
#pragma unroll
  for (int e = 0; e < E; ++e) line[Lines::index(e, thread)] = x[e];
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

// Multiply the lines V (B, D, R, C) by those of the filters H (D, R, C), conjugate where
// `adjoint`, in place. Grid: blocks of lines, channels.
__global__ void __launch_bounds__(ALONG_THREADS, LINE_BLOCKS) multiply_lines(
    Value* V, const Value* H, int B, int adjoint) {
  extern __shared__ Value shared[];
  const int thread = threadIdx.x % LINE_THREADS, line = threadIdx.x / LINE_THREADS;
  const Padded place = {line * (C + C / 16)};
  const long long d = blockIdx.y, D = gridDim.y, from = (blockIdx.x * LINES + line) * C;
  Value h[E];
  read_line(h, H + d * N + from, thread);
  Lines::forward(h, thread, shared, place);
  __syncthreads();
  for (long long b = 0; b < B; ++b) {
    Value* at = V + (b * D + d) * N + from;
    Value x[E];
    read_line(x, at, thread);
    Lines::forward(x, thread, shared, place);
#pragma unroll
    for (int e = 0; e < E; ++e) x[e] = x[e] * (adjoint ? conj(h[e]) : h[e]);
    Lines::inverse(x, thread, shared, place);
    write_line(x, at, thread);
  }
}

// Sums over the batch of lines of dz times those of v, conjugate, written to the first lines of v.
__global__ void __launch_bounds__(ALONG_THREADS, LINE_BLOCKS) correlate_lines(
    const Value* dZ, Value* V, int B) {
  extern __shared__ Value shared[];
  const int thread = threadIdx.x % LINE_THREADS, line = threadIdx.x / LINE_THREADS;
  const Padded place = {line * (C + C / 16)};
  const long long d = blockIdx.y, D = gridDim.y, from = (blockIdx.x * LINES + line) * C;
  Value sum[E];
#pragma unroll
  for (int e = 0; e < E; ++e) sum[e] = {0.0f, 0.0f};
  for (long long b = 0; b < B; ++b) {
    Value x[E], y[E];
    read_line(x, dZ + (b * D + d) * N + from, thread);
    read_line(y, V + (b * D + d) * N + from, thread);
    Lines::forward(x, thread, shared, place);
    __syncthreads();
    Lines::forward(y, thread, shared, place);
#pragma unroll
    for (int e = 0; e < E; ++e) sum[e] = sum[e] + x[e] * conj(y[e]);
    __syncthreads();
  }
  Lines::inverse(sum, thread, shared, place);
  write_line(sum, V + d * N + from, thread);
}
}
