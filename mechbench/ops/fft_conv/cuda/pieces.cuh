// Rows in pieces of eight numbers, which a thread reads and writes at once: for what stands around
// the convolution of an order-2 Hyena (`mechbench.ops.hyena_mix`), which needs a token's neighbours.

constexpr int PIECE = 8;

struct __align__(16) Vector { unsigned int words[4]; };

// Vectors of a piece to numbers, and back.
__device__ __forceinline__ void unpack(const Vector* v, float* x, const float*) {
#pragma unroll
  for (int i = 0; i < PIECE; ++i) x[i] = __uint_as_float(v[i / 4].words[i % 4]);
}
__device__ __forceinline__ void pack(const float* x, Vector* v, const float*) {
#pragma unroll
  for (int i = 0; i < PIECE; ++i) v[i / 4].words[i % 4] = __float_as_uint(x[i]);
}
template <class Real>
__device__ __forceinline__ void unpack(const Vector* v, float* x, const Real*) {
#pragma unroll
  for (int i = 0; i < PIECE; ++i) {
    const unsigned int word = v->words[i / 2];
    const Real half = {static_cast<unsigned short>(i % 2 ? word >> 16 : word)};
    x[i] = read(&half);
  }
}
template <class Real>
__device__ __forceinline__ void pack(const float* x, Vector* v, const Real*) {
#pragma unroll
  for (int i = 0; i < PIECE / 2; ++i) {
    Real low, high;
    write(&low, x[2 * i]);
    write(&high, x[2 * i + 1]);
    v->words[i] = low.bits | static_cast<unsigned int>(high.bits) << 16;
  }
}

// A row of L numbers.
template <class Real>
struct Row {
  Real* numbers;
  int L;
  bool even;  // whether it begins at a vector

  __device__ __forceinline__ Row(Real* numbers, int L)
      : numbers(numbers), L(L), even(reinterpret_cast<unsigned long long>(numbers) % 16 == 0) {}

  // The piece from t on, a multiple of PIECE; zero beyond the row.
  __device__ __forceinline__ void get(float* x, int t) const {
    constexpr int VECTORS = PIECE * sizeof(Real) / sizeof(Vector);
    if (even && t + PIECE <= L) {
      Vector v[VECTORS];
#pragma unroll
      for (int i = 0; i < VECTORS; ++i) v[i] = reinterpret_cast<const Vector*>(numbers + t)[i];
      unpack(v, x, numbers);
    } else {
#pragma unroll
      for (int i = 0; i < PIECE; ++i) x[i] = t + i < L ? read(numbers + t + i) : 0.0f;
    }
  }

  // Store a piece; x becomes what it is when it is read again.
  __device__ __forceinline__ void put(float* x, int t) const {
    constexpr int VECTORS = PIECE * sizeof(Real) / sizeof(Vector);
    Vector v[VECTORS];
    pack(x, v, numbers);
    unpack(v, x, numbers);
    if (even && t + PIECE <= L) {
#pragma unroll
      for (int i = 0; i < VECTORS; ++i) reinterpret_cast<Vector*>(numbers + t)[i] = v[i];
    } else {
#pragma unroll
      for (int i = 0; i < PIECE; ++i)
        if (t + i < L) write(numbers + t + i, x[i]);
    }
  }
};

// The short convolution of a projection of three taps, its bias added before.
struct Short {
  Row<const REAL> row;
  const float *taps, *bias, *shift;  // of its channel

  __device__ __forceinline__ void get(float* y, int t) const {
    float x[PIECE + 2];
    row.get(x + 2, t);
#pragma unroll
    for (int i = 0; i < 2; ++i) x[i] = t > 0 ? read(row.numbers + t - 2 + i) + *shift : 0.0f;
#pragma unroll
    for (int i = 2; i < PIECE + 2; ++i) x[i] += *shift;
#pragma unroll
    for (int i = 0; i < PIECE; ++i)
      y[i] = taps[0] * x[i + 2] + taps[1] * x[i + 1] + taps[2] * x[i] + *bias;
  }
};

// The projections (B, 3 D, L) of v, x1 and x2 with their short convolutions: taps (3 D, 3), biases
// behind and before them (3 D,).
struct Projections {
  const REAL* p;
  long long batch, channel;
  const float *taps, *bias, *shift;
  int D, L;

  __device__ __forceinline__ Short of(int group, long long b, long long d) const {
    const long long c = static_cast<long long>(group) * D + d;
    const Row<const REAL> row(p + b * batch + c * channel, L);
    return {row, taps + 3 * c, bias + c, shift + c};
  }
};

// w = s(v) s(x1), which is stored.
struct Gated {
  Short v, x1;
  Row<REAL> w;
  __device__ __forceinline__ void get(float* y, int t) const {
    float x[PIECE];
    v.get(y, t);
    x1.get(x, t);
#pragma unroll
    for (int i = 0; i < PIECE; ++i) y[i] = t + i < w.L ? y[i] * x[i] : 0.0f;
    w.put(y, t);
  }
};

// dz = dy s(x2)
struct Gradient {
  Row<const REAL> dy;
  Short x2;
  __device__ __forceinline__ void get(float* y, int t) const {
    float x[PIECE];
    dy.get(y, t);
    x2.get(x, t);
#pragma unroll
    for (int i = 0; i < PIECE; ++i) y[i] *= x[i];
  }
};

// z, and y = s(x2) (z + skip w)
struct Mixed {
  Short x2;
  Row<const REAL> w;
  Row<REAL> z, y;
  float skip;
  __device__ __forceinline__ void put(float* x, int t) const {
    float kept[PIECE], gate[PIECE];
    w.get(kept, t);
    x2.get(gate, t);
    z.put(x, t);
#pragma unroll
    for (int i = 0; i < PIECE; ++i) x[i] = gate[i] * (x[i] + skip * kept[i]);
    y.put(x, t);
  }
};

// Where a real number lies in shared memory, so that neither pieces nor elements meet in a bank.
__device__ __forceinline__ int real_place(int i) { return i + (i >> 5 << 2); }

// COUNT pieces a thread, STEP apart, from a source to shared memory; piece q begins at time at(q).
template <int COUNT, int STEP, class Source, class At>
__device__ __forceinline__ void fill(
    float* shared, const Source& source, int L, int first, At at) {
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    const int q = first + STEP * i, t = at(q);
    float x[PIECE] = {};
    if (t < L) source.get(x, t);
    Vector v[2];
    pack(x, v, static_cast<const float*>(nullptr));
#pragma unroll
    for (int half = 0; half < 2; ++half)
      *reinterpret_cast<Vector*>(shared + real_place(PIECE * q + 4 * half)) = v[half];
  }
}

// The same from shared memory to a sink.
template <int COUNT, int STEP, class Sink, class At>
__device__ __forceinline__ void drain(
    const float* shared, const Sink& sink, int L, int first, At at) {
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    const int q = first + STEP * i, t = at(q);
    Vector v[2];
#pragma unroll
    for (int half = 0; half < 2; ++half)
      v[half] = *reinterpret_cast<const Vector*>(shared + real_place(PIECE * q + 4 * half));
    float x[PIECE];
    unpack(v, x, static_cast<const float*>(nullptr));
    if (t < L) sink.put(x, t);
  }
}
