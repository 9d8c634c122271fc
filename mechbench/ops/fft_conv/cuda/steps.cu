// Long convolution of rows longer than a block: in steps through memory.
//
// A row of N = R C numbers is a matrix, C of them a line. `columns` transforms its columns, in
// blocks of WIDTH side by side, and turns what it finds; `..._lines` transform its lines, multiply,
// and take them back; `uncolumns` ends it. Lines stand in digit-reversed order between the steps.
// Between the steps numbers stand in 32 bits, or, where HALVED, in 16, times a power of two a block,
// so that the largest uses the range of half precision and none overflows.
// Defined on the way in: HALVED (0 or 1), ROWS and COLUMNS (radices of R and C), WIDTH, LINES (a block of `..._lines`
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
// Blocks a multiprocessor: what registers allow.
constexpr int LINE_BLOCKS = 384 / ALONG_THREADS, BACKWARD_BLOCKS = 256 / ALONG_THREADS;
constexpr int LAST = Down::at(Down::last);

// A row of lines as it stands between two steps, with the scale of each block that wrote to it.
#if HALVED
typedef unsigned int Number;
#else
typedef Value Number;
#endif
struct Stored {
  Number* numbers;
  float* scales;  // none in 32 bits
#if HALVED
  __device__ __forceinline__ Value get(long long i, long long block) const {
    Value x;
    asm("{.reg .b16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b;}"
        : "=f"(x.re), "=f"(x.im)
        : "r"(numbers[i]));
    const float scale = scales[block];
    return {x.re * scale, x.im * scale};
  }
  __device__ __forceinline__ void put(long long i, Value x, float scale) const {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(numbers[i]) : "f"(x.im * scale), "f"(x.re * scale));
  }
#else
  __device__ __forceinline__ Value get(long long i, long long) const { return numbers[i]; }
  __device__ __forceinline__ void put(long long i, Value x, float) const { numbers[i] = x; }
#endif
};

// What the block's numbers x are to be multiplied by before they are stored: 1 in 32 bits. Its
// inverse is written to scales[block].
__device__ __forceinline__ float scaled(const Value* x, float* scales, long long block) {
#if HALVED
  __shared__ float peaks[32];
  float peak = 0.0f;
#pragma unroll
  for (int e = 0; e < E; ++e) peak = fmaxf(peak, fmaxf(fabsf(x[e].re), fabsf(x[e].im)));
#pragma unroll
  for (int far = 16; far; far /= 2) peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, far));
  if (threadIdx.x % 32 == 0) peaks[threadIdx.x / 32] = peak;
  __syncthreads();
  for (int warp = 0; warp < blockDim.x / 32; ++warp) peak = fmaxf(peak, peaks[warp]);
  // 2^14 over the power of two below the peak; the exponent alone, kept within float32's range
  const int exponent = static_cast<int>(__float_as_uint(peak) >> 23) - 127;
  const int power = max(-126, min(126, 14 - exponent));
  if (threadIdx.x == 0) scales[block] = __uint_as_float(127 - power << 23);
  return __uint_as_float(127 + power << 23);
#else
  return 1.0f;
#endif
}

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
    const Real* x, Stored X, int D, int L, long long batch, long long channel, float scale) {
  extern __shared__ Value shared[];
  const int column = blockIdx.x * WIDTH + threadIdx.x % WIDTH, thread = threadIdx.x / WIDTH;
  const Beside place = {static_cast<int>(threadIdx.x % WIDTH)};
  const long long row = blockIdx.y, b = row / D, d = row % D;
  Value y[E];
  read_twisted<Columns, E>(y, x + b * batch + d * channel, C, column, L, thread, scale);
  Columns::forward(y, thread, shared, place);
  turn<false>(y, column, thread);
  const float factor = scaled(y, X.scales, row * gridDim.x + blockIdx.x);
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const int p = Columns::position<Down::last>(thread + R / E * (e / LAST), e % LAST);
    X.put(row * N + static_cast<long long>(p) * C + column, y[e], factor);
  }
}

template <class Real>
__device__ __forceinline__ void restore_columns(
    Stored X, Real* x, int D, int L, long long batch, long long channel, float scale) {
  extern __shared__ Value shared[];
  const int column = blockIdx.x * WIDTH + threadIdx.x % WIDTH, thread = threadIdx.x / WIDTH;
  const Beside place = {static_cast<int>(threadIdx.x % WIDTH)};
  const long long row = blockIdx.y, b = row / D, d = row % D;
  Value y[E];
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const int p = Columns::position<Down::last>(thread + R / E * (e / LAST), e % LAST);
    y[e] = X.get(row * N + static_cast<long long>(p) * C + column, (row * R + p) / LINES);
  }
  turn<true>(y, column, thread);
  Columns::inverse(y, thread, shared, place);
  write_untwisted<Columns, E>(y, x + b * batch + d * channel, C, column, L, thread, scale);
}

// The elements of a thread of line `line` of row `row`: from columns, and for `uncolumns`.
__device__ __forceinline__ void read_line(
    Value* x, Stored X, long long row, int line, int thread) {
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const int i = Lines::index(e, thread);
    x[e] = X.get(row * N + line * C + i, row * (C / WIDTH) + i / WIDTH);
  }
}
__device__ __forceinline__ void write_line(
    const Value* x, Stored X, long long row, int line, int thread) {
  const float factor = scaled(x, X.scales, row * gridDim.x + blockIdx.x);
#pragma unroll
  for (int e = 0; e < E; ++e)
    X.put(row * N + line * C + Lines::index(e, thread), x[e], factor);
}

extern "C" {

// Lines X (B D, R, C) of the rows x (B, D, L). Grid: blocks of columns, rows.
__global__ void __launch_bounds__(DOWN_THREADS) columns(
    const REAL* x, Number* X, float* scales, int D, int L, long long batch, long long channel,
    float scale) {
  transform_columns(x, Stored{X, scales}, D, L, batch, channel, scale);
}
__global__ void __launch_bounds__(DOWN_THREADS) filter_columns(
    const float* x, Number* X, float* scales, int D, int L, long long batch, long long channel,
    float scale) {
  transform_columns(x, Stored{X, scales}, D, L, batch, channel, scale);
}

// The inverse of `columns`: L numbers of each row.
__global__ void __launch_bounds__(DOWN_THREADS) uncolumns(
    Number* X, float* scales, REAL* x, int D, int L, long long batch, long long channel,
    float scale) {
  restore_columns(Stored{X, scales}, x, D, L, batch, channel, scale);
}
__global__ void __launch_bounds__(DOWN_THREADS) filter_uncolumns(
    Number* X, float* scales, float* x, int D, int L, long long batch, long long channel,
    float scale) {
  restore_columns(Stored{X, scales}, x, D, L, batch, channel, scale);
}

// Multiply the lines V (B, D, R, C) by those of the filters H (D, R, C), in place; their scales are
// new ones. Grid: blocks of lines, channels.
__global__ void __launch_bounds__(ALONG_THREADS, LINE_BLOCKS) multiply_lines(
    Number* V, float* V_scales, float* out_scales, Number* H, float* H_scales, int B) {
  extern __shared__ Value shared[];
  const int thread = threadIdx.x % LINE_THREADS, among = threadIdx.x / LINE_THREADS;
  const Padded place = {among * (C + C / 16)};
  const int line = blockIdx.x * LINES + among;
  const long long d = blockIdx.y, D = gridDim.y;
  const Stored out = {V, out_scales};
  Value h[E];
  read_line(h, Stored{H, H_scales}, d, line, thread);
  Lines::forward(h, thread, shared, place);
  __syncthreads();
  for (long long b = 0; b < B; ++b) {
    Value x[E];
    read_line(x, Stored{V, V_scales}, b * D + d, line, thread);
    Lines::forward(x, thread, shared, place);
#pragma unroll
    for (int e = 0; e < E; ++e) x[e] = x[e] * h[e];
    Lines::inverse(x, thread, shared, place);
    write_line(x, out, b * D + d, line, thread);
  }
}

// The whole backward between the columns: dZ becomes its product with the conjugate lines of the
// filters H, and the first lines of V the sum over the batch of dZ times the conjugate of V.
__global__ void __launch_bounds__(ALONG_THREADS, BACKWARD_BLOCKS) backward_lines(
    Number* dZ, float* dZ_scales, float* dZ_out_scales, Number* V, float* V_scales,
    float* V_out_scales, Number* H, float* H_scales, int B) {
  extern __shared__ Value shared[];
  const int thread = threadIdx.x % LINE_THREADS, among = threadIdx.x / LINE_THREADS;
  const Padded place = {among * (C + C / 16)};
  const int line = blockIdx.x * LINES + among;
  const long long d = blockIdx.y, D = gridDim.y;
  Value h[E], sum[E];
  read_line(h, Stored{H, H_scales}, d, line, thread);
  Lines::forward(h, thread, shared, place);
#pragma unroll
  for (int e = 0; e < E; ++e) sum[e] = {0.0f, 0.0f};
  __syncthreads();
  for (long long b = 0; b < B; ++b) {
    Value x[E], y[E];
    read_line(x, Stored{dZ, dZ_scales}, b * D + d, line, thread);
    read_line(y, Stored{V, V_scales}, b * D + d, line, thread);
    Lines::forward(x, thread, shared, place);
    __syncthreads();
    Lines::forward(y, thread, shared, place);
#pragma unroll
    for (int e = 0; e < E; ++e) {
      sum[e] = sum[e] + x[e] * conj(y[e]);
      x[e] = x[e] * conj(h[e]);
    }
    Lines::inverse(x, thread, shared, place);
    write_line(x, Stored{dZ, dZ_out_scales}, b * D + d, line, thread);
  }
  __syncthreads();
  Lines::inverse(sum, thread, shared, place);
  write_line(sum, Stored{V, V_out_scales}, d, line, thread);
}
}
