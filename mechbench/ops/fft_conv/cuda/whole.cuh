// Transforms of rows that one block holds.
//
// Spectra lie in memory as threads hold them: element e of thread t at e T + t.
// Defined on the way in: RADICES, ELEMENTS (a thread), REAL (type of the rows).

typedef Radices<RADICES> Plan;
constexpr int E = ELEMENTS, N = Plan::length, T = N / E;
constexpr int BLOCKS = 512 / T;  // a multiprocessor: 128 registers a thread

struct Padded {  // so that sixteen threads reach sixteen pairs of banks, at any stage
  __device__ __forceinline__ int operator()(int p) const { return p + (p >> 4); }
};
typedef Transform<Plan, E, true, Padded> Twisted;

// How many of L numbers are real parts.
__device__ __forceinline__ int inside(int L) { return L < N ? L : N; }

// The same thread, for all the compilers know another: what is computed from it is computed anew,
// where factors that are kept would take the registers. All threads of a warp take part. (An empty
// `asm` hides it from the first of two compilers alone: `mix` of 8,192 tokens spilled 412 bytes.)
__device__ __forceinline__ int again(int thread) {
  return __shfl_xor_sync(~0u, thread, 0);
}

// Store the elements of a thread as the spectrum of row `row`.
__device__ __forceinline__ void keep(const Value* x, Value* X, long long row, int thread) {
#pragma unroll
  for (int e = 0; e < E; ++e) X[row * N + e * T + thread] = x[e];
}

// Multiply by the spectrum of filter d, conjugate where ADJOINT.
template <bool ADJOINT>
__device__ __forceinline__ void multiply(Value* x, const Value* H, long long d, int thread) {
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const Value factor = H[d * N + e * T + thread];
    x[e] = x[e] * (ADJOINT ? conj(factor) : factor);
  }
}
