// Real numbers as they stand in memory: 32 bits, or 16 as bfloat16 or half.

struct Bfloat16 { unsigned short bits; };
struct Half { unsigned short bits; };

__device__ __forceinline__ float read(const float* x) { return *x; }
__device__ __forceinline__ void write(float* x, float value) { *x = value; }

__device__ __forceinline__ float read(const Bfloat16* x) {
  return __uint_as_float(static_cast<unsigned int>(x->bits) << 16);
}
__device__ __forceinline__ void write(Bfloat16* x, float value) {
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(x->bits) : "f"(value));
}

__device__ __forceinline__ float read(const Half* x) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x->bits));
  return value;
}
__device__ __forceinline__ void write(Half* x, float value) {
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(x->bits) : "f"(value));
}

// The number that is element `e` of a thread with its twist, and without it.
template <class F>
__device__ __forceinline__ Value twisted(float value, int e) {
  return {value * cosine(F::twist(e)), value * sine(F::twist(e))};
}
template <class F>
__device__ __forceinline__ float untwisted(Value x, int e) {
  return x.re * cosine(F::twist(e)) + x.im * sine(F::twist(e));
}

// The same of an imaginary part.
template <class F>
__device__ __forceinline__ Value twisted_late(float value, int e) {
  return {-value * sine(F::twist(e)), value * cosine(F::twist(e))};
}
template <class F>
__device__ __forceinline__ float untwisted_late(Value x, int e) {
  return x.im * cosine(F::twist(e)) - x.re * sine(F::twist(e));
}

// The elements of a thread from a real row of L numbers, zero beyond, with their twist. Number N +
// t of a row is the imaginary part of number t: so an output of that time is one of a convolution
// of N numbers. There are few: t is element 0 of a thread.
template <class F, int E, class Real>
__device__ __forceinline__ void read_twisted(
    Value* x, const Real* row, long long stride, long long first, long long N, int L, int thread,
    float scale) {
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const long long t = first + stride * F::index(e, thread);
    x[e] = twisted<F>(t < L ? read(row + t) * scale : 0.0f, e);
  }
  const long long t = N + first + stride * F::index(0, thread);
  if (t < L) x[0] = x[0] + twisted_late<F>(read(row + t) * scale, 0);
}

// The elements of a thread without their twist, up to L numbers.
template <class F, int E, class Real>
__device__ __forceinline__ void write_untwisted(
    const Value* x, Real* row, long long stride, long long first, long long N, int L, int thread,
    float scale) {
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const long long t = first + stride * F::index(e, thread);
    if (t < L) write(row + t, untwisted<F>(x[e], e) * scale);
  }
  const long long t = N + first + stride * F::index(0, thread);
  if (t < L) write(row + t, untwisted_late<F>(x[0], 0) * scale);
}
