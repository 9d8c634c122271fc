// The long convolution of an order-2 Hyena with what stands around it, of rows longer than a block:
// its first step and its last. Rows are some channels, from `first` on, of every sequence.

struct Piecewise {  // two pieces of every row of a block's columns
  static __device__ __forceinline__ int time(int q) {
    return q / 2 * C + blockIdx.x * WIDTH + q % 2 * PIECE;
  }
  static __device__ __forceinline__ bool follows(int q) { return q % 2; }
};
constexpr int PIECES = R * WIDTH / PIECE / DOWN_THREADS;  // a thread
static_assert(WIDTH == 2 * PIECE, "a row of columns is two pieces");

// The `late` numbers behind the first N of the row stand at `last`.
template <class Source>
__device__ __forceinline__ void source_columns(
    const Source& source, Value* X, const REAL* last, int late) {
  extern __shared__ Value shared[];
  float* reals = reinterpret_cast<float*>(shared);
  const Beside place = {static_cast<int>(threadIdx.x % WIDTH)};
  const int column = blockIdx.x * WIDTH + place.column, thread = threadIdx.x / WIDTH;
  fill<PIECES, DOWN_THREADS, Piecewise>(reals, source, threadIdx.x);
  Value x[E];
#pragma unroll
  for (int e = 0; e < E; ++e)
    x[e] = twisted<Columns>(reals[real_place(place(Columns::index(e, thread)))], e);
  const int t = column + C * thread;
  if (t < late) x[0] = x[0] + twisted_late<Columns>(read(last + t), 0);
  __syncthreads();
  put_columns(x, X, blockIdx.y, column, thread, place, shared);
}

extern "C" {

// Lines of the first N tokens of w (B, D, L), which is stored in rows `width` apart. Grid: blocks
// of columns, rows.
__global__ void __launch_bounds__(DOWN_THREADS) gated_columns(
    const REAL* p, const float* taps, const float* bias, const float* shift, REAL* w, Value* X,
    int first, int rows, int D, int L, int width, long long p_batch, long long p_channel) {
  const long long b = blockIdx.y / rows, d = first + blockIdx.y % rows;
  const Projections all = {p, p_batch, p_channel, taps, bias, shift, D, L};
  const Row<REAL> kept = {w + (b * D + d) * width, L};
  source_columns(Gated{all.of(0, b, d), all.of(1, b, d), kept}, X, nullptr, 0);
}

// Lines of dz = dy s(x2), whose `late` last (B, D, late) stand for themselves.
__global__ void __launch_bounds__(DOWN_THREADS) gradient_columns(
    const REAL* p, const float* taps, const float* bias, const float* shift, const REAL* dy,
    const REAL* last, Value* X, int first, int rows, int D, int L, int late, long long p_batch,
    long long p_channel, long long dy_batch, long long dy_channel) {
  const long long b = blockIdx.y / rows, d = first + blockIdx.y % rows;
  const Projections all = {p, p_batch, p_channel, taps, bias, shift, D, L};
  const Row<const REAL> gradient = {dy + b * dy_batch + d * dy_channel, L};
  last += (b * D + d) * late;
  source_columns(Gradient{gradient, all.of(2, b, d)}, X, last, late);
}

// z, in rows `width` apart, with the `late` numbers behind its first N, and y from lines.
__global__ void __launch_bounds__(DOWN_THREADS) mixed_uncolumns(
    const REAL* p, const float* taps, const float* bias, const float* shift, const float* skip,
    const REAL* w, const Value* X, REAL* z, REAL* y, int first, int rows, int D, int L, int late,
    int width, long long p_batch, long long p_channel, long long y_batch,
    long long y_channel) {
  extern __shared__ Value shared[];
  float* reals = reinterpret_cast<float*>(shared);
  const Beside place = {static_cast<int>(threadIdx.x % WIDTH)};
  const int column = blockIdx.x * WIDTH + place.column, thread = threadIdx.x / WIDTH;
  const long long b = blockIdx.y / rows, d = first + blockIdx.y % rows, row = (b * D + d) * width;
  Value x[E];
  get_columns(x, X, blockIdx.y, column, thread, place, shared);
  __syncthreads();
#pragma unroll
  for (int e = 0; e < E; ++e)
    reals[real_place(place(Columns::index(e, thread)))] = untwisted<Columns>(x[e], e);
  const int t = column + C * thread;
  if (t < late) write(z + row + N + t, untwisted_late<Columns>(x[0], 0));
  const Projections all = {p, p_batch, p_channel, taps, bias, shift, D, L};
  const Row<REAL> out = {y + b * y_batch + d * y_channel, L};
  const Row<const REAL> kept = {w + row, L};
  const Mixed sink = {all.of(2, b, d), kept, Row<REAL>{z + row, L}, out, skip[d]};
  drain<PIECES, DOWN_THREADS, Piecewise>(reals, sink, threadIdx.x);
}
}
