"""Fused kernels of `mechbench.ops.delta_rule`: a pass over the sequence that keeps the state.

The triangular systems of all chunks are inverted first, side by side; then a program walks over the
chunks of a head with the state S (K, P) in registers. With G the cumulated log decays of a chunk,
D_ts = exp(G_t - G_s) for s <= t, X = (I + T)^-1, and R the gradient of the state after the chunk:

    z = beta (v - exp(G) k S),   w = X z
    y = (q k^T * D) w + exp(G) q S            S <- exp(G_C) S + (exp(G_C - G) k)^T w
    dw = (q k^T * D)^T dy + exp(G_C - G) k R,   dz = X^T dw,   dT = -dz w^T below the diagonal
    R <- exp(G_C) R + (exp(G) q)^T dy - (beta exp(G) k)^T dz

A key reads, in T and z, with a factor exp(G_t), and is written with exp(-G_s); so the gradient of
G_t over the whole sequence is q_t . dq_t + k_t . (dk_t as read) - k_t . (dk_t as written).

A token may have N steps, each with its own key, value, decay and beta; t and L count steps, and a
token's query belongs to its last. What the queries read is stored for those alone.

Where heads are few, a program takes a segment of a sequence: see `segments`.
"""
