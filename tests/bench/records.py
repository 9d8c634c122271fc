"""A record made by hand: hyena linear, attention quadratic, eager attention out of memory."""

from __future__ import annotations

from mechbench.bench.record import Line, Measured, Rates, Reading, Record, Setting, Work

SEQLENS = [1024, 2048, 4096, 8192]


def measured(ms: float, mib: float | None = 100.0) -> Measured:
    return Measured((ms / 4, ms / 2, ms), (ms, 2 * ms, 3 * ms), mib)


def record() -> Record:
    lines = [Line("hyena", {"order": 2}), Line("attention"), Line("eager-attention")]
    lines.append(Line("fft_conv/torch", {}, "torch"))
    rates = Rates(copy_gb_s=1000.0, matmul_tflop_s=100.0)
    provenance = {
        "mechbench": "0.1.0", "torch": "2.9", "python": "3.12", "platform": "Linux",
        "device": "a GPU", "git_commit": None, "date": "2026-11-25T00:00:00Z",
        "command": "mechbench bench | tee",
    }  # fmt: skip
    setting = Setting(d_model=8, tokens=8192, device="cuda", dtype="bfloat16", repeats=3)
    out = Record(lines, SEQLENS, setting, rates, dict(provenance))
    work = Work(10**9, 2 * 10**9, 10**11, None)
    kernels: dict[str, Measured | str]
    for n in SEQLENS:
        batch = setting.batch(n)
        kernels = {"flash": measured(n / 1024), "cuDNN": "No available kernel."}
        out.readings += [
            Reading("hyena", n, batch, "ok", "", "torch", measured(4.0), work),
            Reading("attention", n, batch, "ok", "", "flash", measured(n / 1024), work, kernels),
            Reading("fft_conv/torch", n, batch, "ok", "", "torch", measured(1.0, None), work),
        ]
    name = "eager-attention"
    out.readings += [
        Reading(name, 1024, 8, "ok", "", "", measured(10.0), work),
        Reading(name, 2048, 4, "out of memory", "Tried to allocate 96.00 GiB"),
        Reading(name, 4096, 2, "not run", "out of memory at 2048"),
        Reading(name, 8192, 1, "not run", "out of memory at 2048"),
    ]
    return out
