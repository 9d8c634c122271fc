"""Fused kernels of `mechbench.ops.dplr`: all that a chunk does, then a pass over the chunks.

With C tokens a chunk, G their cumulated log decays, E the same before each token, e = exp(G_C),
and A^qb, A^qk how y reads p and v (as A^ab and A^ak tell how p does), a chunk is, by tokens and
keys alone,

    X = (I - A^ab)^-1,   M = X A^ak,   W = X (exp(E) a)                        so p = M v + W S
    y = Q S + Y v,       Q = exp(G) q + A^qb W,          Y = A^qk + A^qb M
    S <- (e + F) S + N^T v,   F = b'^T W,   N = k' + M^T b',   x' = exp(G_C - G) x

Only the last line goes from chunk to chunk: one product of (K, K) and (K, P) each. The gradient R
of the state after a chunk goes back alike, R <- (e + F)^T R + Q^T dy, and all other gradients are
again a chunk's own. With r and z those of p and of A^ak v + exp(E) a S, which X maps to p,

    r = (A^qb)^T dy + b' R,   z = X^T r,   dv = Y^T dy + N^T R
    dA^qb = dy p^T,   dA^qk = dy v^T,   dA^ab = z p^T,   dA^ak = z v^T
    d(exp(G) q) = dy S^T,   d(exp(E) a) = z S^T,   db' = p R^T,   dk' = v R^T

The gated delta rule (`DELTA`) has k = b = beta times its key, and a is minus its key and reads what
the step's decay has left, G in place of E. There p + v = X v + W S: X takes the place of M, and
A^qk and A^ak are not needed.
"""
