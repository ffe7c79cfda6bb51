"""swapco measured against its peers: ``python -m benchmarks`` from the root of the repository.

What a reader of the numbers must know:

- **Ratios, not times.** Machines differ, and one machine differs from hour to hour. Each row is swapco
  divided by a peer that does the same work (the functions stand side by side in ``work/``); lower is
  better, and the *bar* is the ratio that a release must not exceed.
- **Interleaved rounds.** A round measures every row once, swapco and then its peer, seconds apart; the
  next round does it all again. The verdict is the median of the ratios of the rounds, so that a noisy
  minute spoils one round of every row and not one side of one row. The table also shows the lowest and
  highest ratio: a bar inside that range is not decided by this run.
- **CPU time, not wall time.** The small loops never wait, and for servers CPU per request says how many
  of them fit on a machine; both are steadier than a clock on the wall. Wall time is in the JSON, and a
  note appears where a loop that should never wait does (wall time well above CPU time). The rows about
  kernel threads are the exception: a thread that waits for another one sleeps, so they take wall time.
- **A fresh process for each measurement**, pinned to one CPU: no library sees another's state, heap or
  warmed caches. The load generator (``loadgen.c``) gets another CPU, and is the same for every server.
  Again not so the rows about kernel threads: there the process has all CPUs, unless the row says "one CPU",
  because where a library puts its threads is a part of what is measured.
- **On a busy machine** ``chrt -f 40 python -m benchmarks``, as root, keeps others away. Where threads hand over to each
  other, the ordinary scheduler is a part of what is measured: those rows go back to it.

Where things are: ``rows`` (every row and its bar), ``work/`` (what is measured), ``child`` (one
measurement, in its own process), ``harness`` (rounds and processes), ``loadgen`` (compiles and runs the
generator), ``report`` (statistics, table, JSON). ``python -m benchmarks --help`` has the options.
"""
