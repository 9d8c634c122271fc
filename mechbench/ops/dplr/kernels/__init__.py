"""Fused kernels of `mechbench.ops.dplr`: all that a chunk does, then a pass over the chunks.

With C tokens a chunk, G their cumulated log decays, E the same before each token, e = exp(G_C),
and A^qb, A^qk how y reads p and v (as A^ab and A^ak tell how p does), a chunk is, by tokens and
keys alone,

    X = (I - A^ab)^-1,   M = X A^ak,   W = X (exp(E) a)                        so p = M v + W S
    y = Q S + Y v,       Q = exp(G) q + A^qb W,          Y = A^qk + A^qb M
    S <- (e + F) S + N^T v,   F = b'^T W,   N = k' + M^T b',   x' = exp(G_C - G) x

Only the last line goes from chunk to chunk: one product of (K, K) and (K, P) each. The gradient R
of the state after a chunk goes back alike, R <- (e + F)^T R + Q^T dy, and all other gradients are
again a chunk's own:

    dv = Y^T dy + N^T R,   dQ = dy S^T,   dY = dy v^T,   dF = R S^T,   dk' = dN = v R^T
    dA^qk = dY,   dA^qb = dQ W^T + dY M^T,   db' = W dF^T + M dN
    d(exp(E) a) = X^T (A^qb^T dQ + b' dF),   dA^ak = X^T (A^qb^T dY + b' dN^T)
    dA^ab = d(exp(E) a) W^T + dA^ak M^T

The gated delta rule (`DELTA`) has k = b = beta times its key, and a is minus its key and reads what
the step's decay has left, G in place of E. There p + v = X v + W S: X takes the place of M, and
A^qk and A^ak are not needed.
"""
