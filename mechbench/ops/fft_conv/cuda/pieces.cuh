// Rows in pieces of eight numbers, which a thread reads and writes at once: for what stands around
// the convolution of an order-2 Hyena (`mechbench.ops.hyena_mix`), which needs a token's
// neighbours.
//
// Sources and sinks first `load` what they need of all pieces of a thread, so that it is under way
// together, and compute then. Whether a piece `follows` that of the lane before is known beside it.

constexpr int PIECE = 8;

struct __align__(16) Vector { unsigned int words[4]; };

// COUNT numbers from the words that they fill, and back.
template <int COUNT>
__device__ __forceinline__ void unpack(const unsigned int* words, float* x, const float*) {
#pragma unroll
  for (int i = 0; i < COUNT; ++i) x[i] = __uint_as_float(words[i]);
}
template <int COUNT>
__device__ __forceinline__ void pack(const float* x, unsigned int* words, const float*) {
#pragma unroll
  for (int i = 0; i < COUNT; ++i) words[i] = __float_as_uint(x[i]);
}
template <int COUNT, class Real>
__device__ __forceinline__ void unpack(const unsigned int* words, float* x, const Real*) {
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    const Real half = {static_cast<unsigned short>(words[i / 2] >> 16 * (i % 2))};
    x[i] = read(&half);
  }
}
template <int COUNT, class Real>
__device__ __forceinline__ void pack(const float* x, unsigned int* words, const Real*) {
#pragma unroll
  for (int i = 0; i < COUNT / 2; ++i) {
    Real low, high;
    write(&low, x[2 * i]);
    write(&high, x[2 * i + 1]);
    words[i] = low.bits | static_cast<unsigned int>(high.bits) << 16;
  }
}

template <class Real>
struct Words {  // of a piece, as they stand in memory
  static constexpr int count = PIECE * sizeof(Real) / 4, vectors = count / 4;
  unsigned int words[count];
};

// A row of L numbers, zero beyond. L is a multiple of PIECE, and it begins at a vector.
template <class Real>
struct Row {
  typedef Words<Real> Loaded;
  Real* numbers;
  int L;

  // The piece from t on.
  __device__ __forceinline__ Loaded load(int t, bool = false) const {
    Loaded found;
#pragma unroll
    for (int i = 0; i < Loaded::vectors; ++i) {
      Vector v = {};
      if (t < L) v = reinterpret_cast<const Vector*>(numbers + t)[i];
#pragma unroll
      for (int j = 0; j < 4; ++j) found.words[4 * i + j] = v.words[j];
    }
    return found;
  }
  __device__ __forceinline__ void get(float* x, const Loaded& piece, int = 0, bool = false) const {
    unpack<PIECE>(piece.words, x, numbers);
  }

  // Store a piece; x becomes what it is when it is read again.
  __device__ __forceinline__ void put(float* x, int t) const {
    Loaded piece;
    pack<PIECE>(x, piece.words, numbers);
    unpack<PIECE>(piece.words, x, numbers);
    if (t >= L) return;
#pragma unroll
    for (int i = 0; i < Loaded::vectors; ++i) {
      Vector v;
#pragma unroll
      for (int j = 0; j < 4; ++j) v.words[j] = piece.words[4 * i + j];
      reinterpret_cast<Vector*>(numbers + t)[i] = v;
    }
  }
};

// The short convolution of a projection, three taps, with its biases behind and before.
struct Short {
  typedef Row<const REAL> Numbers;
  static constexpr int BEFORE = sizeof(REAL) / 2;  // words of the two numbers before a piece
  struct Loaded {
    Numbers::Loaded piece;
    unsigned int before[BEFORE];
  };
  Numbers row;
  float taps[3], bias, shift;

  __device__ __forceinline__ Loaded load(int t, bool follows) const {
    Loaded found = {row.load(t), {}};
    if (!follows && t > 0 && t < row.L) {
#pragma unroll
      for (int i = 0; i < BEFORE; ++i)
        found.before[i] = reinterpret_cast<const unsigned int*>(row.numbers + t)[i - BEFORE];
    }
    return found;
  }
  __device__ __forceinline__ void get(float* y, const Loaded& found, int t, bool follows) const {
    unsigned int before[BEFORE];
#pragma unroll
    for (int i = 0; i < BEFORE; ++i) {
      const unsigned int last = found.piece.words[Numbers::Loaded::count - BEFORE + i];
      const unsigned int other = __shfl_up_sync(~0u, last, 1);
      before[i] = follows ? other : found.before[i];
    }
    float x[PIECE + 2];
    unpack<2>(before, x, row.numbers);
    row.get(x + 2, found.piece);
    x[0] = t > 0 ? x[0] + shift : 0.0f;
    x[1] = t > 0 ? x[1] + shift : 0.0f;
#pragma unroll
    for (int i = 2; i < PIECE + 2; ++i) x[i] += shift;
#pragma unroll
    for (int i = 0; i < PIECE; ++i)
      y[i] = taps[0] * x[i + 2] + taps[1] * x[i + 1] + taps[2] * x[i] + bias;
  }
};

// The projections (B, 3 D, L) of v, x1 and x2: taps (3 D, 3), biases behind and before (3 D,).
struct Projections {
  const REAL* p;
  long long batch, channel;
  const float *taps, *bias, *shift;
  int D, L;

  __device__ __forceinline__ Short of(int group, long long b, long long d) const {
    const long long c = static_cast<long long>(group) * D + d;
    const Row<const REAL> row = {p + b * batch + c * channel, L};
    return {row, {taps[3 * c], taps[3 * c + 1], taps[3 * c + 2]}, bias[c], shift[c]};
  }
};

// w = s(v) s(x1), which is stored.
struct Gated {
  struct Loaded { Short::Loaded v, x1; };
  Short v, x1;
  Row<REAL> w;

  __device__ __forceinline__ Loaded load(int t, bool follows) const {
    return {v.load(t, follows), x1.load(t, follows)};
  }
  __device__ __forceinline__ void get(float* y, const Loaded& found, int t, bool follows) const {
    float x[PIECE];
    v.get(y, found.v, t, follows);
    x1.get(x, found.x1, t, follows);
#pragma unroll
    for (int i = 0; i < PIECE; ++i) y[i] = t < w.L ? y[i] * x[i] : 0.0f;
    w.put(y, t);
  }
};

// dz = dy s(x2)
struct Gradient {
  struct Loaded {
    Row<const REAL>::Loaded dy;
    Short::Loaded x2;
  };
  Row<const REAL> dy;
  Short x2;

  __device__ __forceinline__ Loaded load(int t, bool follows) const {
    return {dy.load(t), x2.load(t, follows)};
  }
  __device__ __forceinline__ void get(float* y, const Loaded& found, int t, bool follows) const {
    float x[PIECE];
    dy.get(y, found.dy);
    x2.get(x, found.x2, t, follows);
#pragma unroll
    for (int i = 0; i < PIECE; ++i) y[i] *= x[i];
  }
};

// z, and y = s(x2) (z + skip w)
struct Mixed {
  struct Loaded {
    Row<const REAL>::Loaded w;
    Short::Loaded x2;
  };
  Short x2;
  Row<const REAL> w;
  Row<REAL> z, y;
  float skip;

  __device__ __forceinline__ Loaded load(int t, bool follows) const {
    return {w.load(t), x2.load(t, follows)};
  }
  __device__ __forceinline__ void put(float* x, const Loaded& found, int t, bool follows) const {
    float kept[PIECE], gate[PIECE];
    w.get(kept, found.w);
    x2.get(gate, found.x2, t, follows);
    z.put(x, t);
#pragma unroll
    for (int i = 0; i < PIECE; ++i) x[i] = gate[i] * (x[i] + skip * kept[i]);
    y.put(x, t);
  }
};

// Where a real number lies in shared memory, so that neither pieces nor elements meet in a bank.
__device__ __forceinline__ int real_place(int i) { return i + (i >> 5 << 2); }

// COUNT pieces a thread, STEP apart, from a source to shared memory. `At` tells at what time piece
// q begins, and whether it follows. Ends with a barrier.
template <int COUNT, int STEP, class At, class Source>
__device__ __forceinline__ void fill(float* shared, const Source& source, int first) {
  typename Source::Loaded found[COUNT];
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    const int q = first + STEP * i;
    found[i] = source.load(At::time(q), At::follows(q));
  }
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    const int q = first + STEP * i;
    float x[PIECE];
    source.get(x, found[i], At::time(q), At::follows(q));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Vector v;
      pack<4>(x + 4 * half, v.words, static_cast<const float*>(nullptr));
      *reinterpret_cast<Vector*>(shared + real_place(PIECE * q + 4 * half)) = v;
    }
  }
  __syncthreads();
}

// The same from shared memory, which is read behind a barrier, to a sink.
template <int COUNT, int STEP, class At, class Sink>
__device__ __forceinline__ void drain(const float* shared, const Sink& sink, int first) {
  typename Sink::Loaded found[COUNT];
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    const int q = first + STEP * i;
    found[i] = sink.load(At::time(q), At::follows(q));
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    const int q = first + STEP * i;
    float x[PIECE];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Vector v = *reinterpret_cast<const Vector*>(shared + real_place(PIECE * q + 4 * half));
      unpack<4>(v.words, x + 4 * half, static_cast<const float*>(nullptr));
    }
    sink.put(x, found[i], At::time(q), At::follows(q));
  }
}
