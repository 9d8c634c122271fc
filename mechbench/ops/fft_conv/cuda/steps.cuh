// Long convolution of rows longer than a block: in steps through memory.
//
// A row of N = R C numbers is a matrix, C of them a line. `columns` transforms its columns, in
// blocks of WIDTH side by side, and turns what it finds; `..._lines` transform its lines, multiply,
// and take them back; `uncolumns` ends it. Lines stand in digit-reversed order between the steps.
// Defined on the way in: ROWS and COLUMNS (radices of R and C), WIDTH, LINES (a block of
// `..._lines` holds), REAL (type of the rows).
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
constexpr int LINE_BLOCKS = 512 / ALONG_THREADS, BACKWARD_BLOCKS = 384 / ALONG_THREADS;
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

// The elements of a thread, their columns transformed, to the lines of row `row`; and from there.
__device__ __forceinline__ void put_columns(
    Value* x, Value* X, long long row, int column, int thread, Beside place, Value* shared) {
  Columns::forward(x, thread, shared, place);
  turn<false>(x, column, thread);
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const int p = Columns::position<Down::last>(thread + R / E * (e / LAST), e % LAST);
    X[row * N + static_cast<long long>(p) * C + column] = x[e];
  }
}
__device__ __forceinline__ void get_columns(
    Value* x, const Value* X, long long row, int column, int thread, Beside place, Value* shared) {
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const int p = Columns::position<Down::last>(thread + R / E * (e / LAST), e % LAST);
    x[e] = X[row * N + static_cast<long long>(p) * C + column];
  }
  turn<true>(x, column, thread);
  Columns::inverse(x, thread, shared, place);
}

// The elements of a thread of line `line` of row `row`: from columns, and for `uncolumns`.
__device__ __forceinline__ void read_line(
    Value* x, const Value* X, long long row, int line, int thread) {
#pragma unroll
  for (int e = 0; e < E; ++e) x[e] = X[row * N + line * C + Lines::index(e, thread)];
}
__device__ __forceinline__ void write_line(
    const Value* x, Value* X, long long row, int line, int thread) {
#pragma unroll
  for (int e = 0; e < E; ++e) X[row * N + line * C + Lines::index(e, thread)] = x[e];
}
