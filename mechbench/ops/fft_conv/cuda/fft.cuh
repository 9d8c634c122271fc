// Complex transforms in registers, exchanged through shared memory, and their twist.
//
// A transform of length N = R0 R1 ... runs in stages, decimated in frequency. A thread holds E
// elements. In stage s it has groups of R_s of them, M_s = N / (R0 ... R_s) apart, which a stage
// replaces in place; so the spectrum stands in digit-reversed order, and the inverse, which takes
// the stages backwards, needs no other. A thread writes to shared memory only where it has read
// last, and so one barrier is enough between two stages.
//
// Source: Gentleman and Sande 1966, "Fast Fourier transforms: for fun and profit"; the twist as in
// the module `twist`.

struct __align__(8) Value { float re, im; };

__device__ __forceinline__ Value operator+(Value a, Value b) { return {a.re + b.re, a.im + b.im}; }
__device__ __forceinline__ Value operator-(Value a, Value b) { return {a.re - b.re, a.im - b.im}; }
__device__ __forceinline__ Value operator*(Value a, Value b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
__device__ __forceinline__ Value conj(Value a) { return {a.re, -a.im}; }

// exp(i pi angle)
__device__ __forceinline__ Value unit(float angle) {
  Value w;
  sincospif(angle, &w.im, &w.re);
  return w;
}

// cos(pi k / 64)
__device__ __forceinline__ constexpr float cosine(int k) {
  constexpr float table[33] = {
      1.0f, 0.998795456f, 0.995184727f, 0.98917651f, 0.98078528f, 0.970031253f,
      0.956940336f, 0.941544065f, 0.923879533f, 0.903989293f, 0.881921264f, 0.85772861f,
      0.831469612f, 0.803207531f, 0.773010453f, 0.740951125f, 0.707106781f, 0.671558955f,
      0.634393284f, 0.595699304f, 0.555570233f, 0.514102744f, 0.471396737f, 0.427555093f,
      0.382683432f, 0.336889853f, 0.290284677f, 0.24298018f, 0.195090322f, 0.146730474f,
      0.0980171403f, 0.0490676743f, 6.123234e-17f};
  k = k & 127;
  k = k > 64 ? 128 - k : k;
  return k > 32 ? -table[64 - k] : table[k];
}
__device__ __forceinline__ constexpr float sine(int k) { return cosine(k - 32); }

// a exp(-i pi k / 64) for a k that is known when this is compiled
__device__ __forceinline__ Value turned(Value a, int k) {
  k = k & 127;
  if (k == 0) return a;
  if (k == 32) return {a.im, -a.re};
  if (k == 64) return {-a.re, -a.im};
  if (k == 96) return {-a.im, a.re};
  const float c = cosine(k), s = sine(k);
  if (k == 16) return {c * (a.re + a.im), c * (a.im - a.re)};
  if (k == 112) return {c * (a.re - a.im), c * (a.im + a.re)};
  return {a.re * c + a.im * s, a.im * c - a.re * s};
}

// The transform of R values in place, with exponent -1, or +1 where INVERSE.
template <int R, bool INVERSE>
__device__ __forceinline__ void dft(Value* x) {
  if constexpr (R == 2) {
    const Value a = x[0], b = x[1];
    x[0] = a + b;
    x[1] = a - b;
  } else if constexpr (R == 4) {
    const Value a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3];
    const Value d = turned(x[1] - x[3], INVERSE ? 96 : 32);
    x[0] = a + c;
    x[1] = b + d;
    x[2] = a - c;
    x[3] = b - d;
  } else {
    constexpr int A = R == 8 ? 2 : 4, B = R / A;
    Value y[R];
#pragma unroll
    for (int j = 0; j < B; ++j) {
      Value column[A];
#pragma unroll
      for (int a = 0; a < A; ++a) column[a] = x[j + B * a];
      dft<A, INVERSE>(column);
#pragma unroll
      for (int k = 0; k < A; ++k) {
        const int angle = 128 / R * j * k;
        y[k * B + j] = turned(column[k], INVERSE ? -angle : angle);
      }
    }
#pragma unroll
    for (int k = 0; k < A; ++k) {
      dft<B, INVERSE>(y + k * B);
#pragma unroll
      for (int j = 0; j < B; ++j) x[k + A * j] = y[k * B + j];
    }
  }
}

// Multiply x[k] by first * step^k, k < COUNT: products of powers 2^i, so that errors do not add up.
template <int COUNT>
__device__ __forceinline__ void multiply_powers(Value* x, Value first, Value step) {
  if constexpr (COUNT == 1) {
    x[0] = x[0] * first;
  } else {
    Value half = step;  // step^(COUNT / 2)
#pragma unroll
    for (int i = 2; i < COUNT; i *= 2) half = half * half;
    multiply_powers<COUNT / 2>(x, first, step);
    multiply_powers<COUNT / 2>(x + COUNT / 2, first * half, step);
  }
}

template <int... R>
struct Radices {
  static constexpr int stages = sizeof...(R);
  static constexpr int length = (R * ...);
  static constexpr int last = stages - 1;
  static constexpr __host__ __device__ int at(int s) {
    constexpr int all[] = {R...};
    return all[s];
  }
  // elements of one transform that is left before stage s
  static constexpr __host__ __device__ int before(int s) {
    int n = length;
    for (int i = 0; i < s; ++i) n /= at(i);
    return n;
  }
};

// One transform: the radices P, E elements a thread, whether its input is twisted, and where an
// element lies in shared memory.
template <class P, int E, bool TWISTED, class Place>
struct Transform {
  static constexpr int N = P::length, T = N / E;

  template <int S>
  static __device__ __forceinline__ int position(int group, int r) {
    constexpr int from = P::before(S), step = from / P::at(S);
    return group / step * from + group % step + step * r;
  }

  // exp(-2 pi i j (k - 1/4) / M) for a twisted first stage, exp(-2 pi i j k / M) elsewhere
  template <int S, bool INVERSE>
  static __device__ __forceinline__ void twiddle(Value* x, int thread) {
    constexpr int R = P::at(S), from = P::before(S), step = from / R;
    constexpr float sign = INVERSE ? 1.0f : -1.0f;
#pragma unroll
    for (int g = 0; g < E / R; ++g) {
      const float j = (thread + T * g) % step;
      const Value w = unit(sign * 2.0f / from * j);
      if (TWISTED && S == 0) {
        multiply_powers<R>(x + g * R, unit(-sign * 0.5f / from * j), w);
      } else {
        multiply_powers<R / 2>(x + g * R + R / 2, power<R / 2>(w), w);
        multiply_rest<R / 2>(x + g * R, w);
      }
    }
  }

  template <int K>
  static __device__ __forceinline__ Value power(Value w) {
#pragma unroll
    for (int i = 1; i < K; i *= 2) w = w * w;
    return w;
  }

  // x[k] by w^k where x[0] stays as it is
  template <int COUNT>
  static __device__ __forceinline__ void multiply_rest(Value* x, Value w) {
    if constexpr (COUNT > 1) {
      multiply_powers<COUNT / 2>(x + COUNT / 2, power<COUNT / 2>(w), w);
      multiply_rest<COUNT / 2>(x, w);
    }
  }

  template <int FROM, int TO>
  static __device__ __forceinline__ void exchange(
      Value* x, int thread, Value* shared, Place place) {
    constexpr int RF = P::at(FROM), RT = P::at(TO);
#pragma unroll
    for (int e = 0; e < E; ++e)
      shared[place(position<FROM>(thread + T * (e / RF), e % RF))] = x[e];
    __syncthreads();
#pragma unroll
    for (int e = 0; e < E; ++e)
      x[e] = shared[place(position<TO>(thread + T * (e / RT), e % RT))];
  }

  // From the elements of the first stage to those of the last.
  template <int S = 0>
  static __device__ __forceinline__ void forward(Value* x, int thread, Value* shared, Place place) {
    constexpr int R = P::at(S);
#pragma unroll
    for (int g = 0; g < E / R; ++g) dft<R, false>(x + g * R);
    if constexpr (S < P::last) {
      twiddle<S, false>(x, thread);
      exchange<S, S + 1>(x, thread, shared, place);
      forward<S + 1>(x, thread, shared, place);
    }
  }

  // From the elements of the last stage to those of the first; not divided by N.
  template <int S = P::last>
  static __device__ __forceinline__ void inverse(Value* x, int thread, Value* shared, Place place) {
    constexpr int R = P::at(S);
    if constexpr (S < P::last) twiddle<S, true>(x, thread);
#pragma unroll
    for (int g = 0; g < E / R; ++g) dft<R, true>(x + g * R);
    if constexpr (S > 0) {
      exchange<S, S - 1>(x, thread, shared, place);
      inverse<S - 1>(x, thread, shared, place);
    }
  }

  // Element `e` of the first stage: its index, and the part of its twist that the first twiddle
  // does not hold, as an index of `turned`.
  static __device__ __forceinline__ int index(int e, int thread) {
    return position<0>(thread + T * (e / P::at(0)), e % P::at(0));
  }
  static __device__ __forceinline__ constexpr int twist(int e) {
    return 32 / P::at(0) * (e % P::at(0));
  }
};
