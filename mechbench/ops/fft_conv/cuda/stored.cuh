// Numbers as they stand between two kernels: in 32 bits, or, where HALVED, in 16, times a power of
// two a block, so that the largest uses the range of half precision and none overflows.
//
// Defined on the way in: HALVED (0 or 1).

#if HALVED
typedef unsigned int Number;
#else
typedef Value Number;
#endif
struct Stored {
  Number* numbers;
  float* scales;  // one a block that wrote to it; none in 32 bits
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

// What the block's numbers x, E a thread, are to be multiplied by before they are stored: 1 in 32
// bits. Its inverse is written to scales[block].
template <int E>
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
